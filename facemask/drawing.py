"""Draw detections on images for people."""

from collections.abc import Sequence

import cv2
import numpy as np

from facemask.boxes import square_around
from facemask.labels import Colour, colour, display_name
from facemask.types import Box, Detection

WHITE: Colour = (255, 255, 255)
STATUS_COLOUR: Colour = (40, 40, 40)
ZONE_COLOUR: Colour = (255, 220, 90)
HIDDEN_MARGIN = 0.2  # of a face's longer side, on each side
MOSAIC_CELLS = 5  # a side: too few to know anyone by
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_detections(image: np.ndarray, detections: Sequence[Detection]) -> np.ndarray:
    """Return a copy of `image`, uint8 (H, W, 3) BGR, with a box and a label on each face, the first on top.

    An unsure label ends in a question mark, and its box is thin.
    """
    return _draw(image, detections, [f"{display_name(face.label, face.is_unsure)} {face.probability:.0%}" for face in detections])


def draw_tracked(image: np.ndarray, faces: Sequence[Detection]) -> np.ndarray:
    """Return a copy of `image` as `draw_detections` does, the track ID before each label."""
    names = [f"{face.track or ''} {display_name(face.label, face.is_unsure)}".strip() for face in faces]
    return _draw(image, faces, [f"{name} {face.probability:.0%}" for name, face in zip(names, faces, strict=True)])


def pixelate_faces(image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Return a copy of `image`, uint8 (H, W, 3) BGR, with a coarse mosaic over each box and around it.

    A square is hidden, for of a face that is half behind something the box may be half a face wide.
    """
    canvas = image.copy()
    for box in boxes:
        x1, y1, x2, y2 = (round(side) for side in square_around(box, HIDDEN_MARGIN))
        region = canvas[max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1]
        coarse = cv2.resize(region, (MOSAIC_CELLS, MOSAIC_CELLS), interpolation=cv2.INTER_AREA)
        region[:] = cv2.resize(coarse, (region.shape[1], region.shape[0]), interpolation=cv2.INTER_NEAREST)
    return canvas


def _draw(image: np.ndarray, faces: Sequence[Detection], texts: Sequence[str]) -> np.ndarray:
    canvas = image.copy()
    thickness = max(2, round(min(image.shape[:2]) / 300))  # px
    for face in reversed(faces):
        x1, y1, x2, y2 = face.box
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour(face.label), 1 if face.is_unsure else thickness)
    for face, text in reversed(list(zip(faces, texts, strict=True))):
        x1, y1, x2, _ = face.box
        # Letters about a tenth of the face's width wide, within what can be read and what does not hide the image.
        scale = float(np.clip((x2 - x1) / 220, 0.35, max(0.35, min(image.shape[:2]) / 600)))
        _put_label(canvas, text, x1, y1, scale, colour(face.label))
    return canvas


def draw_zone(image: np.ndarray, polygon: np.ndarray, name: str) -> None:
    """Draw the outline of a polygon (n, 2) px and its name into `image`, thinly, in place."""
    points = np.minimum(polygon.round().astype(np.int32), (image.shape[1] - 1, image.shape[0] - 1))  # edges can be seen
    cv2.polylines(image, [points], isClosed=True, color=ZONE_COLOUR, thickness=1, lineType=cv2.LINE_AA)
    left, top = points[points.sum(axis=1).argmin()].tolist()  # the upper left one
    _put_label(image, name, left + 3, top + 18, 0.4, STATUS_COLOUR)


def draw_status(image: np.ndarray, text: str) -> None:
    """Write a line in the lower left corner of `image`, in place."""
    scale = max(0.4, min(image.shape[:2]) / 900)
    _put_label(image, text, 0, image.shape[0], scale, STATUS_COLOUR)


def _put_label(canvas: np.ndarray, text: str, left: int, bottom: int, scale: float, colour: Colour) -> None:
    """Write white text on a filled strip that ends above `bottom`, moved inside the picture where it would stick out."""
    thickness = 1 if scale < 0.7 else 2
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, thickness)
    strip_height = height + baseline + 2
    left = max(0, min(left, canvas.shape[1] - width - 4))
    top = max(0, bottom - strip_height)
    cv2.rectangle(canvas, (left, top), (left + width + 3, top + strip_height - 1), colour, cv2.FILLED)
    cv2.putText(canvas, text, (left + 2, top + height + 1), FONT, scale, WHITE, thickness, cv2.LINE_AA)
