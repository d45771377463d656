import numpy as np
import pytest

from facemask.boxes import clip_boxes, crop_face, iou_matrix, nms, square_around
from facemask.types import Face

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("boxes", "scores", "kept"),
    [
        pytest.param([], [], [], id="empty"),
        pytest.param([(0, 0, 10, 10)], [0.4], [], id="weak"),
        pytest.param([(0, 0, 10, 10)], [0.5], [0], id="at the limit"),
        pytest.param([(0, 0, 10, 10), (1, 0, 11, 10)], [0.6, 0.9], [1], id="overlapping"),
        pytest.param([(0, 0, 10, 10), (9, 0, 19, 10)], [0.6, 0.9], [1, 0], id="apart, strongest first"),
        pytest.param([(0, 0, NAN, 10), (0, 0, 10, 10)], [0.9, 0.8], [1], id="NaN box"),
        pytest.param([(0, 0, INF, 10), (0, 0, 10, 10)], [0.9, 0.8], [1], id="infinite box"),
        pytest.param([(0, 0, 10, 10)], [NAN], [], id="NaN score"),
    ],
)
def test_nms(boxes, scores, kept):
    boxes, scores = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    got_boxes, got_scores = nms(boxes, scores, 0.5, 0.45, 400, 200)
    np.testing.assert_array_equal(got_boxes, boxes[kept])
    np.testing.assert_array_equal(got_scores, scores[kept])


def test_nms_keeps_at_most():
    boxes = np.array([(20 * i, 0, 20 * i + 10, 10) for i in range(5)], np.float32)
    scores = np.linspace(0.9, 0.6, 5, dtype=np.float32)
    assert len(nms(boxes, scores, 0.5, 0.45, 400, 3)[0]) == 3
    assert len(nms(boxes, scores, 0.5, 0.45, 2, 200)[0]) == 2


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        pytest.param((10, 20, 30, 40), (10, 20, 30, 40), id="inside"),
        pytest.param((-5.4, -1, 30, 40), (0, 0, 30, 40), id="left and top"),
        pytest.param((10, 20, 130, 90), (10, 20, 100, 80), id="right and bottom"),
        pytest.param((-9, -9, 900, 900), (0, 0, 100, 80), id="all round"),
        pytest.param((9.6, 19.4, 30.4, 40.6), (10, 19, 30, 41), id="rounded"),
        pytest.param((-20, 20, -1, 40), None, id="outside left"),
        pytest.param((100, 20, 120, 40), None, id="outside right"),
        pytest.param((10, 80, 30, 90), None, id="outside below"),
        pytest.param((10.1, 20, 10.4, 40), None, id="empty once rounded"),
        pytest.param((30, 20, 10, 40), None, id="corners swapped"),
    ],
)
def test_clip_boxes(box, clipped):
    boxes, kept = clip_boxes(np.array([box], float), 100, 80)
    assert boxes.tolist() == ([] if clipped is None else [list(clipped)])
    assert kept.tolist() == ([] if clipped is None else [0])


def test_clip_boxes_of_none():
    boxes, kept = clip_boxes(np.empty((0, 4)), 100, 80)
    assert boxes.shape == (0, 4) and kept.shape == (0,)


def test_face_is_frozen():
    with pytest.raises(AttributeError):
        Face((0, 0, 1, 1), 0.5).confidence = 1.0


def test_iou_matrix():
    boxes, others = [(0, 0, 10, 10), (20, 20, 30, 30)], [(0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10)]
    np.testing.assert_allclose(iou_matrix(boxes, others), [(1, 1 / 3, 0), (0, 0, 0)])
    assert iou_matrix(boxes, []).shape == (2, 0) and iou_matrix([], others).shape == (0, 3)
    assert iou_matrix([(3, 3, 3, 3)], [(3, 3, 3, 3)]).tolist() == [[0]]


@pytest.mark.parametrize(
    ("box", "margin", "square"),
    [
        pytest.param((10, 10, 30, 30), 0.0, (10, 10, 30, 30), id="square"),
        pytest.param((10, 10, 30, 50), 0.0, (0, 10, 40, 50), id="portrait"),
        pytest.param((10, 10, 50, 30), 0.25, (0, -10, 60, 50), id="landscape with margin"),
    ],
)
def test_square_around(box, margin, square):
    assert square_around(box, margin) == square


def test_crop_face_is_the_box():
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:60, 30:70] = (1, 2, 3)
    crop = crop_face(image, (30, 20, 70, 60), 40, 0.0)
    assert crop.shape == (40, 40, 3)
    assert (crop == (1, 2, 3)).all()


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (95, 95, 100, 100), (0, 0, 100, 100), (50, 50, 51, 51)])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_crop_face_at_borders(box, margin):
    image = np.full((100, 100, 3), 7, np.uint8)
    crop = crop_face(image, box, 32, margin)
    assert crop.shape == (32, 32, 3)
    assert (crop == 7).all()


def test_crop_face_of_one_pixel_image():
    assert crop_face(np.zeros((1, 1, 3), np.uint8), (0, 0, 1, 1), 16, 0.15).shape == (16, 16, 3)
