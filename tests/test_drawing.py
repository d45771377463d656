import numpy as np
import pytest

from facemask.drawing import STYLES, draw_detections, draw_status, readable
from facemask.pipeline import Detection


def detection(box, label="with_mask"):
    return Detection(box, 0.9, label, 0.8, {label: 0.8, "other": 0.2})


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("with_mask", "Mask"),
        ("without_mask", "No mask"),
        ("mask_weared_incorrect", "Mask worn wrong"),
        ("face_shield", "Face shield"),
    ],
)
def test_readable(label, text):
    assert readable(label) == text


def test_draw_detections_leaves_the_image_alone():
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_detections(image, [detection((100, 80, 180, 160))])
    assert not image.any()
    assert tuple(drawn[120, 100]) == STYLES["with_mask"][1]
    assert tuple(drawn[120, 179]) == STYLES["with_mask"][1]
    assert not drawn[120, 140].any()


def test_draw_detections_of_none():
    image = np.full((20, 30, 3), 9, np.uint8)
    np.testing.assert_array_equal(draw_detections(image, []), image)


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (1200, 1600)])
@pytest.mark.parametrize("label", ["without_mask", "something_else"])
def test_draw_detections_anywhere(size, label):
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_detections(image, [detection((0, 0, width, height), label), detection((width - 1, height - 1, width, height))])
    assert drawn.shape == image.shape and drawn.any()


def test_draw_status_writes_at_the_bottom():
    image = np.zeros((100, 200, 3), np.uint8)
    draw_status(image, "25 frames/s")
    assert image[80:].any() and not image[:70].any()
