"""Images turned by quarter turns, and the boxes in them."""

import cv2
import numpy as np

from facemask.types import Box

ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def turn_left(image: np.ndarray, turns: int) -> np.ndarray:
    """Turn an image, (H, W, C), to the left by that many quarter turns; negative ones turn it to the right."""
    turns %= 4
    return cv2.rotate(image, ROTATIONS[turns]) if turns else image


def turn_box(box: Box, turns: int, image: np.ndarray) -> Box:
    """Return a box in `image`, (H, W, C), as one in the image that `turn_left` makes of it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    match turns % 4:
        case 1:
            return y1, width - x2, y2, width - x1
        case 2:
            return width - x2, height - y2, width - x1, height - y1
        case 3:
            return height - y2, x1, height - y1, x2
    return box
