import shutil
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.errors import InputError  # noqa: E402
from facemask.training.dataset import (  # noqa: E402
    AnnotatedPhoto,
    ClassPhoto,
    class_names,
    limit_faces,
    rename_labels,
)
from facemask.training.formats import read_annotated_photos, read_dataset  # noqa: E402
from tests.helpers import EXAMPLES  # noqa: E402

OBJECT = """<object><name>{label}</name>{more}
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""
ASTRONAUT, OBAMA = (142, 60, 237, 178), (238, 79, 474, 379)


def xml(*objects: tuple) -> str:
    """Return an annotation of objects: label, box, and what else is in it, if anything."""
    return f"<annotation>{''.join(OBJECT.format(label=o[0], box=o[1], more=''.join(o[2:])) for o in objects)}</annotation>"


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
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    for name in ("astronaut", "obama_mask"):
        shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path / "images")
    (tmp_path / "annotations" / "astronaut.xml").write_text(xml(("without_mask", ASTRONAUT)))
    (tmp_path / "annotations" / "obama_mask.xml").write_text(xml(("with_mask", OBAMA)))
    (tmp_path / "annotations" / "no_such_photo.xml").write_text(xml(("with_mask", OBAMA)))
    return tmp_path


def faces(photos: list) -> list[tuple]:
    """Return name, labels, boxes and ignored boxes of annotated photos."""
    return [(photo.path.stem, photo.labels, photo.boxes.tolist(), photo.ignored.tolist()) for photo in photos]


def photo(name: str, *labels: str) -> AnnotatedPhoto:
    """Return a photo with one face per label, whose boxes have their number as their left side."""
    boxes = [(number, 0, 50, 50) for number in range(len(labels))]
    return AnnotatedPhoto(Path(name), np.array(boxes, float).reshape(-1, 4), labels)


def test_read_dataset_of_class_folders(class_folders):
    assert read_dataset(class_folders) == [
        ClassPhoto(class_folders / "with_mask/a.png", "with_mask"),
        ClassPhoto(class_folders / "with_mask/b.jpg", "with_mask"),
        ClassPhoto(class_folders / "without_mask/c.JPG", "without_mask"),
    ]


def test_read_dataset_of_annotated_photos(annotated):
    assert faces(read_dataset(annotated)) == [
        ("astronaut", ("without_mask",), [[142, 60, 237, 178]], []),
        ("obama_mask", ("with_mask",), [[238, 79, 474, 379]], []),
    ]
    assert [photo.path.stem for photo in read_dataset(annotated, ["obama_mask"])] == ["obama_mask"]


def test_read_annotated_photos_keeps_tiny_faces_and_photos_without_any(annotated):
    (annotated / "annotations/astronaut.xml").write_text(xml(("x", (1, 1, 6, 8))))
    (annotated / "annotations/obama_mask.xml").write_text("<annotation/>")
    assert faces(read_annotated_photos(annotated)) == [("astronaut", ("x",), [[1, 1, 6, 8]], []), ("obama_mask", (), [], [])]


def test_read_annotated_photos_keeps_apart_what_is_to_be_ignored(annotated):
    objects = [
        ("ignore", (1, 1, 20, 20)),
        ("with_mask", (2, 2, 20, 20), "<difficult>0</difficult>"),
        ("with_mask", (3, 3, 20, 20), "<difficult>1</difficult>"),
    ]
    (annotated / "annotations/astronaut.xml").write_text(xml(*objects))
    one = faces(read_annotated_photos(annotated, ["astronaut"]))
    assert one == [("astronaut", ("with_mask",), [[2, 2, 20, 20]], [[1, 1, 20, 20], [3, 3, 20, 20]])]


def test_rename_labels_joins_and_drops_classes():
    photos = [photo("a", "face", "with_mask", "hat", "face"), ClassPhoto(Path("b"), "hat"), ClassPhoto(Path("c"), "face")]
    (one, other), dropped = rename_labels(photos, {"face": "without_mask", "hat": ""})
    assert one.labels == ("without_mask", "with_mask", "without_mask")
    assert (one.boxes[:, 0].tolist(), one.ignored[:, 0].tolist()) == ([0, 1, 3], [2])
    assert other == ClassPhoto(Path("c"), "without_mask")
    assert dropped == {"hat": 2}


def test_rename_labels_swaps_two_classes():
    (one,), dropped = rename_labels([photo("a", "a", "b")], {"a": "b", "b": "a"})
    assert (one.labels, dropped) == (("b", "a"), {})


def test_rename_labels_of_an_unknown_class():
    with pytest.raises(InputError) as error:
        rename_labels([photo("a", "face", "hat")], {"faces": "without_mask"})
    assert str(error.value) == "--rename: no face has the label faces; the data sets have face, hat"


def test_limit_faces_draws_from_one_folder_by_seed():
    photos = [photo(f"in/{number}.jpg", "x", "y", "z") for number in range(10)]
    photos += [ClassPhoto(Path(f"in/x/{number}.jpg"), "x") for number in range(10)] + [photo("out/a.jpg", "x")]
    limited, count = limit_faces(photos, Path("in"), 12, seed=1)
    assert count == 40
    assert sum(len(photo.labels) for photo in limited) == 12 + 1 and limited[-1] is photos[-1]
    for one in limited[:10]:
        kept = one.boxes[:, 0].astype(int).tolist()
        assert one.labels == tuple("xyz"[number] for number in kept)
        assert sorted(kept + one.ignored[:, 0].astype(int).tolist()) == [0, 1, 2]
    drawn = [limit_faces(photos, Path("in"), 12, seed=seed)[0] for seed in (1, 2)]
    assert faces(drawn[0][:10]) == faces(limited[:10]) != faces(drawn[1][:10])
    assert limit_faces(photos, Path("in"), 100, seed=1)[1] == 40
    assert sum(len(photo.labels) for photo in limit_faces(photos, Path("in"), 100, seed=1)[0]) == 41


def test_limit_faces_of_a_folder_without_faces():
    with pytest.raises(InputError) as error:
        limit_faces([photo("in/a.jpg", "x")], Path("inn"), 5, seed=0)
    assert str(error.value) == "--limit: no face of the data sets is in inn; give a folder of -d, or one in it"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda folder: folder.rmdir(), "no such folder", id="missing"),
        pytest.param(lambda folder: None, "no photos found in its subfolders; expected one folder per class", id="empty"),
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


@pytest.mark.parametrize("text", ["", "<annotation>", xml(("x", ("left", 1, 2, 3))), "<a><object><name>x</name></object></a>"])
def test_read_dataset_of_broken_annotation(annotated, text):
    (annotated / "annotations/astronaut.xml").write_text(text)
    with pytest.raises(InputError, match=r"astronaut.xml: not a Pascal VOC annotation \("):
        read_dataset(annotated)


def test_class_names_are_sorted_and_two():
    photos = [ClassPhoto(EXAMPLES, "b"), photo("p", "c", "a"), ClassPhoto(EXAMPLES, "b")]
    assert class_names(photos) == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"found only one class \(b\)"):
        class_names(photos[::2])
    with pytest.raises(InputError, match=r"found only one class \(b, background\); .* besides background$"):
        class_names([ClassPhoto(EXAMPLES, "b"), ClassPhoto(EXAMPLES, "background")])
