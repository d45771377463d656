import cv2
import numpy as np
import pytest

import facemask
from facemask.boxes import iou_matrix
from facemask.detector import MaskDetector, turn_detections
from facemask.io.images import read_image
from facemask.turns import turn_box, turn_left
from tests.helpers import EXAMPLES, ROOT

RES10 = ROOT / "face_detector" / "res10_300x300_ssd.onnx"


@pytest.fixture(scope="module")
def detector() -> MaskDetector:
    return facemask.load_detector(ROOT / "mask_detector.onnx", ROOT / "face_detector" / "masked_faces_ssd.onnx")


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    return read_image(EXAMPLES / "people.jpg")


@pytest.fixture(scope="module")
def masked() -> np.ndarray:
    return read_image(EXAMPLES / "biden_mask.jpg")


@pytest.mark.parametrize("turns", (0, 1, 2, 3, -1, -3))
def test_turn_box_follows_turn_left(turns):
    image = np.zeros((40, 70, 3), np.uint8)
    image[5:12, 20:50] = 255
    turned = turn_left(image, turns)
    rows, columns = np.nonzero(turned[..., 0])
    assert np.array_equal(turned, np.rot90(image, turns))
    expected = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    assert turn_box((20, 5, 50, 12), turns, image) == expected
    assert turn_box(expected, -turns, turned) == (20, 5, 50, 12)


@pytest.mark.parametrize("turns", (1, 2, 3))
def test_detect_turns_an_image_upright(detector, masked, turns):
    turned = turn_left(masked, turns)
    assert detector.find_turns(turned, detector.faces.detect(turned, 0.05)) == 4 - turns
    (expected,), (found,) = detector.detect(masked), turn_detections(detector.detect(turned), -turns, turned)
    assert found.label == expected.label == "with_mask"
    assert iou_matrix([found.box], [expected.box])[0, 0] > 0.95


def test_find_turns_of_an_upright_image_infers_nothing_more(detector, people, monkeypatch):
    faces = detector.faces.detect(people, 0.05)
    monkeypatch.setattr(type(detector.faces), "detect", lambda *_: pytest.fail("inferred again"))
    assert detector.find_turns(people, faces) == 0


def test_find_turns_of_an_image_without_faces_is_none(detector):
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8), (0, 0), 5)
    assert detector.find_turns(image, detector.faces.detect(image, 0.05)) == 0


def test_detect_file_finds_the_turned_faces_and_hides_them_where_they_are(detector, masked, tmp_path):
    path = tmp_path / "turned.png"
    assert cv2.imwrite(str(path), turn_left(masked, 2))
    result = detector.detect_file(path, keep_image=True, hide=True)
    assert result.image is not None and np.array_equal(result.image, turn_left(masked, 2))
    boxes = [turn_box(face.box, 2, masked) for face in detector.detect(masked)]
    assert len(result.detections) == len(boxes)
    assert (iou_matrix(boxes, [face.box for face in result.detections]).max(axis=1) > 0.9).all()
    assert (iou_matrix(boxes, result.hidden).max(axis=1) > 0.9).all()


def test_detectors_with_res10_and_without_the_check_turn_nothing(masked):
    assert facemask.load_detector(face_detector=RES10).turned_faces is None
    assert facemask.load_detector(check_turns=False).find_turns(turn_left(masked, 2), []) == 0
