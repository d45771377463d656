"""Boxes of faces: overlap, non-maximum suppression, clipping, and the crops they cut out."""

from collections.abc import Sequence

import cv2
import numpy as np

MAX_FACES = 1000  # of an image, by default
MAX_COORDINATE = 1e30  # of a box: with larger ones, float32 cannot hold its area


def nms(
    boxes: np.ndarray, scores: np.ndarray, min_score: float, iou_threshold: float, max_candidates: int, max_boxes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drop weak boxes and boxes that overlap a stronger one (non-maximum suppression); strongest first.

    `boxes` is (n, 4) x1, y1, x2, y2 in any unit, `scores` (n,); returns both for the boxes kept. Boxes and scores that
    are not finite are dropped, and boxes beyond `MAX_COORDINATE`.
    """
    candidates = np.flatnonzero((scores >= min_score) & (np.abs(boxes) <= MAX_COORDINATE).all(axis=1) & np.isfinite(scores))
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")[:max_candidates]]
    if not len(candidates):
        return np.empty((0, 4), boxes.dtype), np.empty(0, scores.dtype)
    corner_and_size = np.concatenate([boxes[candidates, :2], boxes[candidates, 2:] - boxes[candidates, :2]], axis=1)
    ranks = np.arange(len(candidates), 0, -1, dtype=np.float32)  # scores rounded to float32 would lose their order
    kept = cv2.dnn.NMSBoxes(corner_and_size.astype(np.float64), ranks, 0.0, iou_threshold)
    kept = candidates[np.asarray(kept, int).ravel()[:max_boxes]]
    return boxes[kept], scores[kept]


def clip_boxes(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Round boxes (n, 4) to pixels and clip them to an image.

    Returns int boxes (k, 4), half-open, none empty, and the indices (k,) of those kept. Boxes with NaN are dropped.
    """
    limits = np.array([width, height, width, height])
    boxes = np.where(np.isnan(boxes).any(axis=1, keepdims=True), 0, boxes)
    clipped = np.clip(np.rint(boxes), 0, limits).astype(int)
    kept = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    return clipped[kept], kept


def iou_matrix(boxes: np.ndarray | Sequence[Sequence[float]], others: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    """Return the intersection over union, 0..1, of each of `boxes` (n, 4) with each of `others` (k, 4), as (n, k).

    Boxes or areas that are not finite overlap nothing.
    """
    boxes, others = (np.asarray(array, float).reshape(-1, 4) for array in (boxes, others))
    left_top = np.maximum(boxes[:, None, :2], others[None, :, :2])
    right_bottom = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    with np.errstate(over="ignore", invalid="ignore"):
        intersection = np.clip(right_bottom - left_top, 0, None).prod(axis=2)
        areas, other_areas = ((array[:, 2:] - array[:, :2]).prod(axis=1) for array in (boxes, others))
        return np.nan_to_num(intersection / np.maximum(areas[:, None] + other_areas - intersection, 1e-9), nan=0.0)


def square_around(box: Sequence[float], margin: float) -> tuple[float, float, float, float]:
    """Return the square around a box's centre: its longer side, widened by `margin` of that side on every side."""
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * (0.5 + margin)
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half


def crop_face(image: np.ndarray, box: Sequence[float], size: int, margin: float) -> np.ndarray:
    """Crop a face as the classifier takes it: uint8 (size, size, 3), colour order as in `image`.

    `box` is x1, y1, x2, y2 in pixels with a part inside `image` (H, W, 3). The part of its square outside the
    image is cut off, and the rest, at least a pixel, stretched. Raises ValueError if no part of the box is inside.
    """
    height, width = image.shape[:2]
    if not (max(box[0], 0) < min(box[2], width) and max(box[1], 0) < min(box[3], height)):
        raise ValueError(f"box {tuple(box)} has no part in an image of {width}x{height} px")
    x1, y1, x2, y2 = square_around(box, margin)
    left, top = round(min(max(x1, 0), width - 1)), round(min(max(y1, 0), height - 1))
    crop = image[top : max(round(min(y2, height)), top + 1), left : max(round(min(x2, width)), left + 1)]
    shrinks = min(crop.shape[:2]) > size
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
