import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.io import images as image_io  # noqa: E402
from facemask.models.face_detectors import load_face_detector  # noqa: E402
from facemask.training.crops import class_indices, load_crops  # noqa: E402
from facemask.training.dataset import AnnotatedPhoto, ClassPhoto  # noqa: E402
from facemask.types import Face  # noqa: E402
from tests.helpers import EXAMPLES, ROOT  # noqa: E402

ASTRONAUT, PEOPLE = EXAMPLES / "astronaut.jpg", EXAMPLES / "people.jpg"
BOX = (142, 60, 237, 178)


class NoDetector:
    """A face detector that must not be asked."""

    def detect(self, image, confidence=0.5):
        raise AssertionError("annotated photos need no face detector")


def annotated(*boxes: tuple, labels: tuple | None = None, path: Path = ASTRONAUT) -> AnnotatedPhoto:
    return AnnotatedPhoto(path, np.array(boxes, float).reshape(-1, 4), labels or ("x",) * len(boxes))


def test_load_crops_keeps_context_and_size():
    (crop,) = load_crops([annotated(BOX)], NoDetector(), 32).crops
    x1, y1, x2, y2 = crop.patch.box
    assert max(x2 - x1, y2 - y1) == pytest.approx(48)
    assert x1 > 0 and y1 > 0 and x2 < crop.patch.image.shape[1] and y2 < crop.patch.image.shape[0]
    assert crop.patch.image[..., 0].mean() > crop.patch.image[..., 2].mean()  # RGB: a face is redder than blue


def test_load_crops_numbers_the_faces_of_all_photos():
    photos = [annotated(BOX, BOX, labels=("a", "b")), annotated(), annotated(BOX, labels=("c",))]
    loaded = load_crops(photos, NoDetector(), 32)
    assert [(crop.label, crop.path, crop.face_id) for crop in loaded.crops] == [
        ("a", ASTRONAUT, 0), ("b", ASTRONAUT, 1), ("c", ASTRONAUT, 2),
    ]  # fmt: skip
    assert class_indices(loaded.crops, ("c", "b", "a")).tolist() == [2, 1, 0]


def test_load_crops_of_class_photos_adds_a_single_face():
    """The astronaut's face comes twice, as the whole photo and cut out; eight people come once."""
    detector = load_face_detector(ROOT / "face_detector" / "res10_300x300_ssd.onnx")
    whole, cut_out, people = load_crops([ClassPhoto(ASTRONAUT, "a"), ClassPhoto(PEOPLE, "b")], detector, 400, workers=2).crops
    image = cv2.cvtColor(cv2.imread(str(ASTRONAUT)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(whole.patch.image, image)
    assert whole.patch.box == (0, 0, image.shape[1], image.shape[0])
    x1, y1, x2, y2 = map(int, cut_out.patch.box)
    np.testing.assert_array_equal(cut_out.patch.image[y1:y2, x1:x2], image[60:178, 142:237])
    assert [(crop.label, crop.path, crop.face_id) for crop in (whole, cut_out, people)] == [
        ("a", ASTRONAUT, 0), ("a", ASTRONAUT, 0), ("b", PEOPLE, 1),
    ]  # fmt: skip


def test_load_crops_decodes_each_photo_once(monkeypatch):
    """Whatever it has: several faces, a whole photo and the face in it, or no face, which is not decoded at all."""
    decoded = []
    decode = image_io.EncodedImage.decode
    monkeypatch.setattr(image_io.EncodedImage, "decode", lambda self, *a: decoded.append(self.path) or decode(self, *a))

    class OneFace:
        def detect(self, image, confidence=0.5):
            return [Face(BOX, 0.9)]

    photos = [annotated(BOX, BOX), ClassPhoto(PEOPLE, "a"), annotated(path=EXAMPLES / "obama.jpg")]
    assert len(load_crops(photos, OneFace(), 32).crops) == 4
    assert decoded == [ASTRONAUT, PEOPLE]


def test_load_crops_skips_unreadable_photos(tmp_path):
    path = tmp_path / "bad.jpg"
    path.write_bytes(b"text")
    loaded = load_crops([annotated(BOX, BOX, path=path), annotated(BOX)], NoDetector(), 32)
    (message,) = loaded.unreadable
    assert message.startswith(f"{path}: not a ")
    assert [crop.face_id for crop in loaded.crops] == [2]


@pytest.mark.parametrize(
    ("box", "counts"),
    [
        pytest.param((900, 10, 950, 60), (0, 0, 1), id="outside"),
        pytest.param((60, 90, 90, 20), (0, 0, 1), id="swapped top and bottom"),
        pytest.param((90, 20, 60, 90), (0, 0, 1), id="swapped left and right"),
        pytest.param((20, 20, 20, 90), (0, 0, 1), id="empty"),
        pytest.param((-20, -20, 60, 60), (1, 0, 0), id="partly outside"),
        pytest.param((10, 10, 15, 17.9), (0, 1, 0), id="below 8 px"),
        pytest.param((10, 10, 13, 18), (1, 0, 0), id="8 px high"),
    ],
)
def test_load_crops_counts_boxes_that_it_skips(box, counts):
    loaded = load_crops([annotated(box)], NoDetector(), 32)
    assert (len(loaded.crops), loaded.small, loaded.outside) == counts


def test_load_crops_does_not_depend_on_the_number_of_workers(tmp_path):
    paths = [shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path) for name in ("people", "astronaut", "obama", "biden")]
    photos = [annotated((10, 10, 60, 60), path=Path(path)) for path in paths]
    one, several = (load_crops(photos, NoDetector(), 32, workers=workers).crops for workers in (1, 3))
    assert [(crop.path, crop.face_id) for crop in one] == [(crop.path, crop.face_id) for crop in several]
