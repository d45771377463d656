"""Sets in each format are evaluated on the split that is held out."""

import logging

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from face_detector.train import divide  # noqa: E402
from facemask.errors import InputError  # noqa: E402
from facemask.evaluation.sets import Kind, read_set  # noqa: E402
from facemask.training.formats import read_annotated_photos, read_class_photos  # noqa: E402


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 40)).save(path)
    return path


@pytest.fixture
def yolo(tmp_path):
    """A YOLO data set with one face per split."""
    for part in ("train", "val", "test"):
        image(tmp_path / "yolo/images" / part / f"{part}.png")
        (tmp_path / "yolo/labels" / part).mkdir(parents=True)
        (tmp_path / "yolo/labels" / part / f"{part}.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "yolo/data.yaml").write_text("train: images/train\nval: images/val\ntest: images/test\nnames: [bare, mask]\n")
    return tmp_path / "yolo"


def test_yolo_is_evaluated_on_its_test_split(yolo, caplog):
    with caplog.at_level(logging.INFO):
        one = read_set(yolo, None, {"mask": "with_mask"}, 0.5, "yolo")
    assert (one.kind, [photo.path.stem for photo in one.photos], one.photos[0].labels) == (
        Kind.ANNOTATED,
        ["test"],
        ("with_mask",),
    )
    np.testing.assert_allclose(one.photos[0].boxes, [[20, 10, 60, 30]])
    assert f"{yolo}: measured on its test split, 1 of 3 photos" in caplog.messages
    assert [photo.path.stem for photo in read_set(yolo, ["train"], {}, 0.5, "yolo").photos] == ["train"]
    (yolo / "images/test/test.png").unlink()
    assert [photo.path.stem for photo in read_set(yolo, None, {}, 0.5, "yolo").photos] == ["val"]


def test_class_folders_with_splits_and_csv_are_evaluated_by_class(tmp_path):
    for part in ("train", "test"):
        for label in ("bare", "mask"):
            image(tmp_path / "splits" / part / label / "a.png")
    one = read_set(tmp_path / "splits", None, {"bare": "without_mask"}, 0.5, "splits")
    assert one.kind is Kind.CLASS_FOLDERS
    assert [one.labels[photo.path] for photo in one.photos] == ["without_mask", "mask"]
    image(tmp_path / "csv/a.png")
    (tmp_path / "csv/labels.csv").write_text("file,label\na.png,mask\n")
    one = read_set(tmp_path / "csv", None, {}, 0.5, "csv")
    assert (one.kind, list(one.labels.values())) == (Kind.CLASS_FOLDERS, ["mask"])
    assert [photo.label for photo in read_class_photos(tmp_path / "csv")] == ["mask"]


def test_photos_alone_show_no_faces(tmp_path):
    image(tmp_path / "a.png")
    assert read_set(tmp_path, None, {}, 0.5, "none").kind is Kind.NO_FACES


def test_photos_are_found_by_content_and_others_counted(tmp_path, caplog):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.avif")
    Image.new("RGB", (8, 8)).save(tmp_path / "b", "JPEG")
    (tmp_path / "c.jxl").write_bytes(b"\xff\x0a" + bytes(50))
    assert [photo.path.name for photo in read_set(tmp_path, None, {}, 0.5, "none").photos] == ["a.avif", "b"]
    assert caplog.messages == [f"{tmp_path}: 1 files are not images of a known kind: not used (.jxl 1)"]


def test_a_data_set_in_a_folder_of_its_archive_is_evaluated(tmp_path):
    for label in ("bare", "mask"):
        image(tmp_path / "archive/Train" / label / "a.png")
        image(tmp_path / "archive/Test" / label / "b.png")
    one = read_set(tmp_path, None, {}, 0.5, "set")
    assert (one.kind, sorted(one.labels.values())) == (Kind.CLASS_FOLDERS, ["bare", "mask"])
    assert {photo.path.stem for photo in one.photos} == {"b"}


def test_the_face_detector_learns_from_train_alone(yolo, tmp_path):
    photos = {yolo: read_annotated_photos(yolo)}
    learnt, validation = divide(photos, None)
    assert [photo.path.stem for photo in learnt[yolo]] == ["train"]
    assert [photo.path.stem for photo in validation] == ["val"]
    (tmp_path / "names.txt").write_text("train\n")
    learnt, validation = divide(photos, tmp_path / "names.txt")
    assert (learnt[yolo], {photo.path.stem for photo in validation}) == ([], {"train", "val"})
    photos = {yolo: [photo for photo in photos[yolo] if photo.split == "train"]}
    with pytest.raises(InputError, match="--validate: no data set has a validation split"):
        divide(photos, None)


def test_formats_with_boxes_and_by_class_are_told_apart(yolo, tmp_path):
    image(tmp_path / "classes/bare/a.png")
    with pytest.raises(InputError, match="classes: no boxes of faces in it"):
        read_annotated_photos(tmp_path / "classes")
    with pytest.raises(InputError, match="yolo: annotated photos; give photos by class"):
        read_class_photos(yolo)
