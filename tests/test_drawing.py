import numpy as np
import pytest

from facemask import drawing
from facemask.drawing import draw_detections, draw_status, draw_tracked, pixelate_faces
from facemask.labels import STYLES, display_name
from facemask.types import Detection


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
def test_display_name(label, text):
    assert display_name(label) == text


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


def test_draw_tracked_shows_the_track_id():
    image = np.zeros((200, 300, 3), np.uint8)
    faces = [Detection((100, 80, 180, 160), 0.9, "with_mask", 0.8, {"with_mask": 0.8}, track) for track in (None, 3, 8)]
    drawn = [draw_tracked(image, [face]) for face in faces]
    np.testing.assert_array_equal(drawn[0], draw_detections(image, [detection((100, 80, 180, 160))]))
    assert not np.array_equal(drawn[1], drawn[0]) and not np.array_equal(drawn[1], drawn[2])
    assert not image.any()


@pytest.mark.parametrize(
    ("box", "square"),
    [
        pytest.param((100, 60, 180, 140), (84, 44, 196, 156), id="square"),
        pytest.param((100, 60, 120, 140), (54, 44, 166, 156), id="a strip of a face"),
        pytest.param((0, 0, 40, 50), (0, 0, 55, 60), id="corner"),
        pytest.param((260, 160, 300, 200), (252, 152, 300, 200), id="other corner"),
        pytest.param((0, 0, 300, 200), (0, 0, 300, 200), id="whole image"),
        pytest.param((150, 100, 151, 101), (150, 100, 151, 101), id="a pixel"),
    ],
)
def test_pixelate_faces(box, square):
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    original = image.copy()
    hidden = pixelate_faces(image, [box])
    np.testing.assert_array_equal(image, original)
    x1, y1, x2, y2 = square
    assert len(np.unique(hidden[y1:y2, x1:x2].reshape(-1, 3), axis=0)) <= 25
    changed = (hidden != image).any(axis=2)
    changed[max(y1 - 1, 0) : y2 + 2, max(x1 - 1, 0) : x2 + 2] = False
    assert not changed.any()


def test_pixelate_faces_of_none():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(pixelate_faces(image, []), image)


@pytest.mark.parametrize("draw", [draw_detections, draw_tracked])
@pytest.mark.parametrize("size", [(372, 538), (1200, 1600)])
def test_unsure_label_has_a_question_mark_and_a_thin_box(monkeypatch, draw, size):
    texts, put_label = [], drawing._put_label
    monkeypatch.setattr(drawing, "_put_label", lambda *arguments: texts.append(arguments[1]) or put_label(*arguments))
    borders = []
    for probability in (0.59, 0.6):
        face = Detection((100, 80, 180, 160), 0.9, "with_mask", probability, {"with_mask": probability})
        drawn = draw(np.zeros((*size, 3), np.uint8), [face])
        assert tuple(drawn[120, 100]) == STYLES["with_mask"][1]
        borders.append(np.count_nonzero(drawn[120, :140].any(axis=-1)))  # px across the left side
    assert texts == ["Mask? 59%", "Mask 60%"]
    assert borders[0] < borders[1]
