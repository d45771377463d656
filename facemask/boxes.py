"""Boxes of faces: which to keep, and how they fit into a picture."""

from dataclasses import dataclass

import cv2
import numpy as np

from facemask.crops import Box

MAX_FACES = 1000  # of a picture, unless told otherwise

FARTHEST = 1e30  # of a box's corners; farther ones are no box, and float32 cannot tell their sides


@dataclass(frozen=True)
class Face:
    """A face found: `box` is x1, y1, x2, y2 in pixels, half-open, inside the image, never empty."""

    box: Box
    confidence: float  # 0..1, the detector's that this is a face


def select_boxes(
    boxes: np.ndarray, scores: np.ndarray, min_score: float, max_overlap: float, max_candidates: int, max_boxes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drop weak boxes and those that overlap a stronger one (non-maximum suppression); strongest first.

    `boxes` is (n, 4) x1, y1, x2, y2 in any unit, `scores` (n,); returns both for the boxes kept. Boxes or scores that
    are not finite, or boxes beyond `FARTHEST`, are dropped.
    """
    candidates = np.flatnonzero((scores >= min_score) & (np.abs(boxes) <= FARTHEST).all(axis=1) & np.isfinite(scores))
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")[:max_candidates]]
    if not len(candidates):
        return np.empty((0, 4), boxes.dtype), np.empty(0, scores.dtype)
    corner_and_size = np.concatenate([boxes[candidates, :2], boxes[candidates, 2:] - boxes[candidates, :2]], axis=1)
    ranks = np.arange(len(candidates), 0, -1, dtype=np.float32)  # scores that float32 rounds would lose their order
    kept = cv2.dnn.NMSBoxes(corner_and_size.astype(np.float64), ranks, 0.0, max_overlap)
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


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
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
