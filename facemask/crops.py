"""Cut faces out of pictures, the same way for training and for detection."""

from collections.abc import Sequence

import cv2
import numpy as np

Box = tuple[int, int, int, int]


def square_around(box: Sequence[float], margin: float) -> tuple[float, float, float, float]:
    """Return the square around a box's centre: its longer side, widened by `margin` of that side on every side."""
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * (0.5 + margin)
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half


def crop_face(image: np.ndarray, box: Sequence[float], size: int, margin: float) -> np.ndarray:
    """Cut a face as the classifier sees it: uint8 (size, size, 3), colour order as in `image`.

    `box` is x1, y1, x2, y2 in pixels with a part inside `image` (H, W, 3). What of the square around it lies outside
    the image is left away, and the rest, a pixel at least, stretched. Raises ValueError if no part of the box is inside.
    """
    height, width = image.shape[:2]
    if not (max(box[0], 0) < min(box[2], width) and max(box[1], 0) < min(box[3], height)):
        raise ValueError(f"box {tuple(box)} has no part in an image of {width}x{height} px")
    x1, y1, x2, y2 = square_around(box, margin)
    left, top = round(min(max(x1, 0), width - 1)), round(min(max(y1, 0), height - 1))
    crop = image[top : max(round(min(y2, height)), top + 1), left : max(round(min(x2, width)), left + 1)]
    shrinks = min(crop.shape[:2]) > size
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
