"""Draw detections for people to look at."""

from collections.abc import Sequence

import cv2
import numpy as np

from facemask.pipeline import Detection

Colour = tuple[int, int, int]  # BGR

# Okabe and Ito's colours, told apart by colour-blind people too: https://jfly.uni-koeln.de/color/
STYLES: dict[str, tuple[str, Colour]] = {
    "with_mask": ("Mask", (115, 158, 0)),
    "without_mask": ("No mask", (0, 94, 213)),
    "mask_weared_incorrect": ("Mask worn wrong", (0, 159, 230)),
}
OTHER_COLOUR: Colour = (178, 114, 0)
WHITE: Colour = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def readable(label: str) -> str:
    """Return a class name as people read it."""
    return STYLES[label][0] if label in STYLES else label.replace("_", " ").capitalize()


def draw_detections(image: np.ndarray, detections: Sequence[Detection]) -> np.ndarray:
    """Return a copy of `image`, uint8 (H, W, 3) BGR, with a box and a label on each face."""
    canvas = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 300))
    for detection in reversed(detections):  # the surest last, on top
        colour = STYLES.get(detection.label, ("", OTHER_COLOUR))[1]
        x1, y1, x2, y2 = detection.box
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour, thickness)
    for detection in reversed(detections):
        colour = STYLES.get(detection.label, ("", OTHER_COLOUR))[1]
        text = f"{readable(detection.label)} {detection.probability:.0%}"
        x1, y1, x2, _ = detection.box
        # Letters about a tenth of the face's width wide, within what can be read and what does not hide the picture.
        scale = float(np.clip((x2 - x1) / 220, 0.35, max(0.35, min(image.shape[:2]) / 600)))
        _put_label(canvas, text, x1, y1, scale, colour)
    return canvas


def draw_status(image: np.ndarray, text: str) -> None:
    """Write a line in the lower left corner of `image`, in place."""
    scale = max(0.4, min(image.shape[:2]) / 900)
    _put_label(image, text, 0, image.shape[0], scale, (40, 40, 40))


def _put_label(canvas: np.ndarray, text: str, left: int, bottom: int, scale: float, colour: Colour) -> None:
    """Write white text on a filled strip that ends above `bottom`, moved inside the picture where it would stick out."""
    thickness = 1 if scale < 0.7 else 2
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, thickness)
    strip_height = height + baseline + 2
    left = max(0, min(left, canvas.shape[1] - width - 4))
    top = max(0, bottom - strip_height)
    cv2.rectangle(canvas, (left, top), (left + width + 3, top + strip_height - 1), colour, cv2.FILLED)
    cv2.putText(canvas, text, (left + 2, top + height + 1), FONT, scale, WHITE, thickness, cv2.LINE_AA)
