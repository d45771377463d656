"""Draw detections on images for people."""

from collections.abc import Sequence

import cv2
import numpy as np

from facemask.boxes import square_around
from facemask.labels import Colour, colour, display_name, percent
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
    return _draw(
        image, detections, [f"{display_name(face.label, face.is_unsure)} {percent(face.probability)}" for face in detections]
    )


def draw_tracked(image: np.ndarray, faces: Sequence[Detection], marked: int | None = None) -> np.ndarray:
    """Return a copy of `image` as `draw_detections` does, the track ID before each label.

    With `marked`, the face of that track alone gets a label, and a strong box with a white line around it; the others get
    thin boxes.
    """
    if marked is None:
        return _draw(image, faces, [tracked_label(face) for face in faces])
    canvas = image.copy()
    for face in faces:
        _put_box(canvas, face.box, 0, 1, colour(face.label))
    for face in faces:
        if face.track == marked:
            thickness = max(4, round(min(image.shape[:2]) / 120))  # px, about twice that of other images
            outer = thickness + max(1, thickness // 2)
            _put_box(canvas, face.box, outer, outer, WHITE)
            _put_box(canvas, face.box, thickness, thickness, colour(face.label))
            left, top = face.box[0] - outer, face.box[1] - outer
            _put_label(canvas, tracked_label(face), left, top, max(0.5, min(image.shape[:2]) / 600), colour(face.label))
    return canvas


def tracked_label(face: Detection) -> str:
    """Return the text on a face of a video: track ID, label and probability."""
    return f"{face.track or ''} {display_name(face.label, face.is_unsure)} {percent(face.probability)}".strip()


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


def _put_box(canvas: np.ndarray, box: Box, outside: int, thickness: int, colour: Colour) -> None:
    """Draw a frame `thickness` px wide inwards, that begins `outside` px outside of `box`."""
    x1, y1, x2, y2 = box
    for inset in range(thickness):
        by = outside - inset
        cv2.rectangle(canvas, (x1 - by, y1 - by), (x2 - 1 + by, y2 - 1 + by), colour, 1)


def _put_label(canvas: np.ndarray, text: str, left: int, bottom: int, scale: float, colour: Colour) -> None:
    """Write white text on a filled strip that ends above `bottom`, moved inside the picture where it would stick out."""
    thickness = 1 if scale < 0.7 else 2
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, thickness)
    strip_height = height + baseline + 2
    left = max(0, min(left, canvas.shape[1] - width - 4))
    top = max(0, bottom - strip_height)
    cv2.rectangle(canvas, (left, top), (left + width + 3, top + strip_height - 1), colour, cv2.FILLED)
    cv2.putText(canvas, text, (left + 2, top + height + 1), FONT, scale, WHITE, thickness, cv2.LINE_AA)
