"""Draw detections on images for people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import cv2
import numpy as np

from facemask.boxes import square_around
from facemask.labels import Colour, colour, css_colour, display_name, percent
from facemask.types import Box, Detection

WHITE: Colour = (255, 255, 255)
STATUS_COLOUR: Colour = (40, 40, 40)
ZONE_COLOUR: Colour = (255, 220, 90)
HIDDEN_MARGIN = 0.2  # of a face's longer side, on each side
MOSAIC_CELLS = 5  # a side: too few to know anyone by
FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_SCALE = 0.36  # of the font: letters of 8 px
SCREEN = 1280  # px, the longest side of an image as people see it
BRIGHT = 380  # sum of the channels of a colour on which white letters cannot be read well
SMALL_FACE = 10  # thicknesses of a box: it would hide a smaller face
CROWD, MAX_LABEL_WIDTH = 20, 3  # faces, and their widths: whose a wider label in a crowd is cannot be seen
MAX_COVERED = 0.12  # of a face's height, by its own label
MAX_LEGEND_COVERS = 0.3  # faces


def draw_detections(image: np.ndarray, detections: Sequence[Detection]) -> np.ndarray:
    """Return a copy of `image`, uint8 (H, W, 3) BGR, with a box and a label on each face, the first on top.

    A label that would cover a face or another label is left out, and a legend has the number of faces by colour. An unsure
    label ends in a question mark, and its box is thin.
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
            _put_text(canvas, tracked_label(face), left, top, max(0.5, min(image.shape[:2]) / 600), colour(face.label))
    return canvas


def tracked_label(face: Detection) -> str:
    """Return the text on a face of a video: track ID, label and probability."""
    return f"{face.track or ''} {display_name(face.label, face.is_unsure)} {percent(face.probability)}".strip()


def shown_face(face: Detection) -> dict:
    """Return, for JSON, what a page draws of a face."""
    return {"box": face.box, "text": tracked_label(face), "colour": css_colour(colour(face.label)), "unsure": face.is_unsure}


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
    labels, taken = _place_labels(image.shape[1], image.shape[0], faces, texts)
    legend = _place_legend(image.shape[1], image.shape[0], faces, taken) if len(labels) < len(faces) else []
    for face in reversed(faces):
        _draw_box(canvas, face, thickness)
    for label in (*reversed(labels), *legend):
        _put_label(canvas, label)
    return canvas


def _draw_box(canvas: np.ndarray, face: Detection, thickness: int) -> None:
    """Draw the box of a face: thin, and of a small face its corners alone, if the label is unsure."""
    x1, y1, x2, y2 = face.box
    is_small = min(x2 - x1, y2 - y1) < SMALL_FACE * thickness
    if not (is_small and face.is_unsure):
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour(face.label), 1 if is_small or face.is_unsure else thickness)
        return
    length = max(1, min(x2 - x1, y2 - y1) // 4)  # px
    for (x, right), (y, down) in product(((x1, 1), (x2 - 1, -1)), ((y1, 1), (y2 - 1, -1))):
        cv2.line(canvas, (x, y), (x + right * length, y), colour(face.label))
        cv2.line(canvas, (x, y), (x, y + down * length), colour(face.label))


@lru_cache(maxsize=4096)
def _text_size(text: str, scale: float, thickness: int) -> tuple[int, int, int]:
    """Return the width of a text in px, its height above the base line, and below."""
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, thickness)
    return width, height, baseline


@dataclass(frozen=True)
class _Label:
    """A text on a strip in the colour of its class; an unsure one has the colour around it."""

    text: str
    left: int  # px, of the strip
    top: int
    scale: float  # of the font
    colour: Colour
    is_unsure: bool = False

    @property
    def thickness(self) -> int:
        """Return that of the letters in px."""
        return max(1, round(1.6 * self.scale))

    @property
    def text_size(self) -> tuple[int, int, int]:
        """Return what `_text_size` does."""
        return _text_size(self.text, self.scale, self.thickness)

    @property
    def margin(self) -> int:
        """Return the space around the text in px."""
        return 2 * self.thickness

    @property
    def size(self) -> tuple[int, int]:
        """Return the width and height of the strip in px."""
        width, height, baseline = self.text_size
        return width + 2 * self.margin, height + baseline // 2 + 2 * self.margin

    @property
    def box(self) -> Box:
        width, height = self.size
        return self.left, self.top, self.left + width, self.top + height

    def at(self, left: int, top: int) -> "_Label":
        return replace(self, left=left, top=top)


def _min_scale(width: int, height: int) -> float:
    """Return the scale of the smallest letters that can be read when the whole image is seen on a screen."""
    return max(MIN_SCALE, max(width, height) / SCREEN * MIN_SCALE)


def _place_labels(width: int, height: int, faces: Sequence[Detection], texts: Sequence[str]) -> tuple[list[_Label], np.ndarray]:
    """Return a label for each face that has room for one above or below it, and all boxes, (N, 4), that are taken then."""
    taken = np.array([face.box for face in faces], np.int64).reshape(-1, 4)
    labels = []
    low = _min_scale(width, height)
    high = max(low, min(width, height) / 600)
    for number, (face, text) in enumerate(zip(faces, texts, strict=True)):
        x1, y1, x2, y2 = face.box
        # Letters about a tenth of the face's width wide, within what can be read and what does not hide the image.
        scale = round(float(np.clip((x2 - x1) / 220, low, high)), 2)
        label = _Label(text, 0, 0, scale, colour(face.label), face.is_unsure)
        strip_width, strip_height = label.size
        if len(faces) > CROWD and strip_width > MAX_LABEL_WIDTH * (x2 - x1):
            continue
        left, right = min(max(x1, 0), width - strip_width), max(x2 - strip_width, 0)
        above, below = y1 - strip_height, y2
        places = [(left, above), (right, above), (left, below), (right, below)]
        others = np.delete(taken, number, axis=0)
        if strip_height <= MAX_COVERED * (y2 - y1):  # of a face that fills the image
            places += [(left, y1)]
        for left, top in places:
            placed = label.at(left, top)
            is_inside = left >= 0 and top >= 0 and left + strip_width <= width and top + strip_height <= height
            if is_inside and not _overlap(placed.box, others).any():
                labels.append(placed)
                taken = np.vstack([taken, placed.box])
                break
    return labels, taken


def _overlap(box: Box, others: np.ndarray) -> np.ndarray:
    """Return the area that a box has in common with each of `others`, (N, 4), px."""
    x1, y1, x2, y2 = box
    widths = np.minimum(others[:, 2], x2) - np.maximum(others[:, 0], x1)
    heights = np.minimum(others[:, 3], y2) - np.maximum(others[:, 1], y1)
    return np.maximum(widths, 0) * np.maximum(heights, 0)


def _place_legend(width: int, height: int, faces: Sequence[Detection], taken: np.ndarray) -> list[_Label]:
    """Return one label for each colour with the number of faces, in the corner or at the edge that covers the least of `taken`.

    Names are left out where they do not fit, and the legend where it would cover faces even then.
    """
    counts = Counter((face.label, face.is_unsure) for face in faces).most_common()
    scale = _min_scale(width, height)
    for texts in ([f"{display_name(*key)}: {count}" for key, count in counts], [str(count) for _, count in counts]):
        labels = [
            _Label(text, 0, 0, scale, colour(label), unsure) for text, ((label, unsure), _) in zip(texts, counts, strict=True)
        ]
        sizes = np.array([label.size for label in labels])
        column = [(0, top) for top in np.cumsum([0, *sizes[:-1, 1]])]
        row = [(left, 0) for left in np.cumsum([0, *sizes[:-1, 0]])]
        best = None
        for offsets, (block_width, block_height) in (
            (column, (sizes[:, 0].max(), sizes[:, 1].sum())),
            (row, (sizes[:, 0].sum(), sizes[:, 1].max())),
        ):
            if block_width > width or block_height > height / 2:
                continue
            for left, top in product((0, width - block_width), (height - block_height, 0)):
                placed = [label.at(int(left + x), int(top + y)) for label, (x, y) in zip(labels, offsets, strict=True)]
                areas = np.maximum((taken[:, 2] - taken[:, 0]) * (taken[:, 3] - taken[:, 1]), 1)
                covered = sum((_overlap(label.box, taken) / areas).sum() for label in placed)  # in faces
                if best is None or covered < best[0]:
                    best = covered, placed
        if best and best[0] <= MAX_LEGEND_COVERS + 0.02 * len(faces):
            return best[1]
    return []


def draw_zone(image: np.ndarray, polygon: np.ndarray, name: str) -> None:
    """Draw the outline of a polygon (n, 2) px and its name into `image`, thinly, in place."""
    points = np.minimum(polygon.round().astype(np.int32), (image.shape[1] - 1, image.shape[0] - 1))  # edges can be seen
    cv2.polylines(image, [points], isClosed=True, color=ZONE_COLOUR, thickness=1, lineType=cv2.LINE_AA)
    left, top = points[points.sum(axis=1).argmin()].tolist()  # the upper left one
    _put_text(image, name, left + 3, top + 18, 0.4, STATUS_COLOUR)


def draw_status(image: np.ndarray, text: str) -> None:
    """Write a line in the lower left corner of `image`, in place."""
    scale = max(0.4, min(image.shape[:2]) / 900)
    _put_text(image, text, 0, image.shape[0], scale, STATUS_COLOUR)


def _put_box(canvas: np.ndarray, box: Box, outside: int, thickness: int, colour: Colour) -> None:
    """Draw a frame `thickness` px wide inwards, that begins `outside` px outside of `box`."""
    x1, y1, x2, y2 = box
    for inset in range(thickness):
        by = outside - inset
        cv2.rectangle(canvas, (x1 - by, y1 - by), (x2 - 1 + by, y2 - 1 + by), colour, 1)


def _put_text(canvas: np.ndarray, text: str, left: int, bottom: int, scale: float, colour: Colour) -> None:
    """Write a label that ends above `bottom`, moved inside the image where it would stick out."""
    label = _Label(text, 0, 0, scale, colour)
    width, height = label.size
    _put_label(canvas, label.at(max(0, min(left, canvas.shape[1] - width)), max(0, bottom - height)))


def _put_label(canvas: np.ndarray, label: _Label) -> None:
    x1, y1, x2, y2 = label.box
    background = WHITE if label.is_unsure else label.colour
    letters = STATUS_COLOUR if sum(background) > BRIGHT else WHITE
    cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), background, cv2.FILLED)
    if label.is_unsure:
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), label.colour, label.thickness)
    at = x1 + label.margin, y1 + label.margin + label.text_size[1]
    cv2.putText(canvas, label.text, at, FONT, label.scale, letters, label.thickness, cv2.LINE_AA)
