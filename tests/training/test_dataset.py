import shutil

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.errors import InputError  # noqa: E402
from facemask.models.face_detectors import load_face_detector  # noqa: E402
from facemask.training.dataset import Sample, add_single_faces, class_names, load_patches, read_annotated_photos, read_dataset  # noqa: E402
from facemask.training.split import group_near_duplicates, split_by_group, split_samples  # noqa: E402
from tests.helpers import EXAMPLES, ROOT  # noqa: E402

XML = """<annotation><object><name>{label}</name>
<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"""


@pytest.fixture
def class_folders(tmp_path):
    for label, names in {"with_mask": ["b.jpg", "a.png"], "without_mask": ["c.JPG", "notes.txt"]}.items():
        (tmp_path / label).mkdir()
        for name in names:
            (tmp_path / label / name).touch()
    (tmp_path / "README.md").touch()
    return tmp_path


@pytest.fixture
def annotated(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    for name in ("astronaut", "obama_mask"):
        shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path / "images")
    xml = XML.format(label="without_mask", x1=142, y1=60, x2=237, y2=178)
    (tmp_path / "annotations" / "astronaut.xml").write_text(xml)
    xml = XML.format(label="with_mask", x1=238, y1=79, x2=474, y2=379)
    (tmp_path / "annotations" / "obama_mask.xml").write_text(xml)
    (tmp_path / "annotations" / "no_such_photo.xml").write_text(xml)
    return tmp_path


def test_read_dataset_of_class_folders(class_folders):
    assert read_dataset(class_folders) == [
        Sample(class_folders / "with_mask/a.png", "with_mask", None),
        Sample(class_folders / "with_mask/b.jpg", "with_mask", None),
        Sample(class_folders / "without_mask/c.JPG", "without_mask", None),
    ]


def test_read_dataset_of_annotated_photos(annotated):
    assert read_dataset(annotated) == [
        Sample(annotated / "images/astronaut.jpg", "without_mask", (142.0, 60.0, 237.0, 178.0)),
        Sample(annotated / "images/obama_mask.jpg", "with_mask", (238.0, 79.0, 474.0, 379.0)),
    ]
    assert [sample.label for sample in read_dataset(annotated, ["obama_mask"])] == ["with_mask"]


def test_read_annotated_photos_keeps_tiny_faces_and_photos_without_any(annotated):
    (annotated / "annotations/astronaut.xml").write_text(XML.format(label="x", x1=1, y1=1, x2=6, y2=8))
    (annotated / "annotations/obama_mask.xml").write_text("<annotation/>")
    tiny, none = read_annotated_photos(annotated)
    assert (tiny.path, tiny.labels, tiny.boxes.tolist()) == (annotated / "images/astronaut.jpg", ("x",), [[1, 1, 6, 8]])
    assert (none.path, none.labels, none.boxes.shape) == (annotated / "images/obama_mask.jpg", (), (0, 4))


def test_faces_of_a_photo_are_numbered(annotated):
    path = annotated / "annotations/astronaut.xml"
    one = XML.format(label="x", x1=1, y1=1, x2=60, y2=80)
    path.write_text(one.replace("</annotation>", one[one.index("<object>") :]))
    assert [(sample.path.stem, sample.face) for sample in read_dataset(annotated, ["astronaut"])] == [
        ("astronaut", 0),
        ("astronaut", 1),
    ]


def test_read_dataset_leaves_out_tiny_faces(annotated):
    (annotated / "annotations/astronaut.xml").write_text(XML.format(label="x", x1=1, y1=1, x2=6, y2=8))
    assert [sample.label for sample in read_dataset(annotated)] == ["with_mask"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda folder: folder.rmdir(), "no such folder", id="missing"),
        pytest.param(lambda folder: None, "no photos found in its subfolders; expected a folder per class", id="empty"),
        pytest.param(lambda folder: (folder / "a.jpg").touch(), "no photos found in its subfolders", id="no class folders"),
        pytest.param(lambda folder: (folder / "annotations").mkdir(), "no annotated face found", id="no annotations"),
    ],
)
def test_read_dataset_of_unknown_layout(tmp_path, make, message):
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(InputError, match=message):
        read_dataset(folder)


@pytest.mark.parametrize("text", ["", "<annotation>", XML.replace("{x1}", "left"), "<a><object><name>x</name></object></a>"])
def test_read_dataset_of_broken_annotation(annotated, text):
    (annotated / "annotations/astronaut.xml").write_text(text)
    with pytest.raises(InputError, match=r"astronaut.xml: not a Pascal VOC annotation \("):
        read_dataset(annotated)


def test_class_names_are_sorted_and_two():
    samples = [Sample(EXAMPLES, label, None) for label in ("b", "a", "b")]
    assert class_names(samples) == ["a", "b"]
    with pytest.raises(InputError, match=r"found one class only \(b\)"):
        class_names(samples[::2])


def test_load_patches_keeps_context_and_size(annotated):
    samples = read_dataset(annotated)
    patches, unreadable = load_patches(samples, 32)
    assert unreadable == []
    for patch in patches.values():
        x1, y1, x2, y2 = patch.box
        assert max(x2 - x1, y2 - y1) == pytest.approx(48)
        assert x1 > 0 and y1 > 0 and x2 < patch.image.shape[1] and y2 < patch.image.shape[0]
    # RGB: the astronaut's face is redder than blue.
    assert patches[0].image[..., 0].mean() > patches[0].image[..., 2].mean()


def test_load_patches_tells_unreadable_photos(annotated):
    (annotated / "images/astronaut.jpg").write_bytes(b"text")
    patches, unreadable = load_patches(read_dataset(annotated), 32)
    assert list(patches) == [1]
    assert unreadable == [
        f"{annotated}/images/astronaut.jpg: not a picture, or a broken one; give a JPEG, PNG, WebP, BMP or TIFF file"
    ]


def test_load_patches_drops_boxes_outside(annotated):
    path = annotated / "images/astronaut.jpg"
    samples = [Sample(path, "x", (900, 10, 950, 60)), Sample(path, "x", (-20, -20, 60, 60))]
    patches, _ = load_patches(samples, 32)
    assert list(patches) == [1]


def test_group_near_duplicates():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 64))
    features[4] = features[1] * 3 + rng.normal(0, 0.01, 64)
    groups = group_near_duplicates(features, ["a", "b", "c", "a", "d", "e"])
    same = {(i, j) for i in range(6) for j in range(i) if groups[i] == groups[j]}
    assert same == {(3, 0), (4, 1)}


def test_split_by_group_keeps_groups_together():
    labels = np.tile([0, 1, 1], 100)
    groups = np.arange(300) // 3
    split = split_by_group(labels, groups, seed=1)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts)) == list(range(300))
    assert [len(part) for part in parts] == [240, 30, 30]
    for part in parts:
        others = np.setdiff1d(np.arange(300), part)
        assert not set(groups[part]) & set(groups[others])
        assert labels[part].mean() == pytest.approx(2 / 3)


def test_split_samples_takes_the_lowest_similarity_that_serves():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 40)
    features = rng.normal(size=(80, 64))
    assert split_samples(features, labels, range(80), "ab", 0)[2] == 0.86
    alike = features * 0.4 + 1  # as photos of one person from one camera are: cosines about 0.86
    split, _, similarity = split_samples(alike, labels, range(80), "ab", 0)
    assert similarity > 0.86
    assert all(set(labels[part]) == {0, 1} for part in (split.train, split.validation, split.test))


def test_split_samples_of_too_few():
    labels = np.array([0] * 30 + [1] * 6)
    features = np.random.default_rng(0).normal(size=(36, 64))
    with pytest.raises(InputError) as error:
        split_samples(features, labels, range(36), ("many", "few"), 0)
    assert str(error.value) == (
        "dataset: too few photos that differ (many 30, few 6; near-duplicates count once); give 10 or more, better hundreds, of each class"
    )


def test_add_single_faces(annotated):
    samples = [Sample(annotated / "images/astronaut.jpg", "a", None), Sample(EXAMPLES / "people.jpg", "b", None)]
    face = Sample(annotated / "images/astronaut.jpg", "a", (142, 60, 237, 178))
    assert add_single_faces(samples, load_face_detector(ROOT / "face_detector" / "res10_300x300_ssd.onnx")) == [*samples, face]


def test_split_by_group_is_repeatable():
    labels, groups = np.tile([0, 1], 50), np.arange(100)
    np.testing.assert_array_equal(split_by_group(labels, groups, 3).test, split_by_group(labels, groups, 3).test)
    assert not np.array_equal(split_by_group(labels, groups, 3).test, split_by_group(labels, groups, 4).test)


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (8, 8), (400, 400)])
def test_augment_any_patch(shape):
    from facemask.training.augment import augment
    from facemask.training.dataset import FacePatch

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    patch = FacePatch(image, (0, 0, shape[1], shape[0]))
    for seed in range(40):
        view = augment(patch, 96, 0.15, np.random.default_rng(seed))
        assert view.shape == (96, 96, 3) and view.dtype == np.uint8


def test_augment_repeats_with_its_seed_and_keeps_the_face():
    from facemask.training.augment import augment
    from facemask.training.dataset import FacePatch

    image = cv2.cvtColor(cv2.imread(str(EXAMPLES / "astronaut.jpg")), cv2.COLOR_BGR2RGB)
    patch = FacePatch(image, (142, 60, 237, 178))
    views = [augment(patch, 96, 0.15, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


@pytest.mark.parametrize("box", [(60, 90, 90, 20), (90, 20, 60, 90), (20, 20, 20, 90)])
def test_load_patches_drops_boxes_that_are_empty_or_swapped(annotated, box):
    patches, unreadable = load_patches([Sample(annotated / "images/astronaut.jpg", "x", box)], 32)
    assert (patches, unreadable) == ({}, [])
