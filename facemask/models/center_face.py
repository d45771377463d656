"""This project's own face detector: small faces, crowds and masks (face_detector/README.md)."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import MAX_FACES, clip_boxes, nms
from facemask.errors import InputError
from facemask.models.model_file import read_model, read_onnx_metadata
from facemask.models.onnx_session import Run, open_onnx
from facemask.types import Face

# Of the boxes that cells tell of one face:
REACH = 0.25  # of the face's size: as far around its own cell others are heard
LEAST_REACH, REACH_CELLS = 1.5, 5  # cells: the next eight at least, and at most so many away
STANDING_OUT = 0.4  # power of the ratio of a face's own cell to the mean of those heard, in its score
LOWEST_SCORE, HIGHEST_SCORE = 1e-6, 0.999
SILENT = np.array([-60, 0, 0, 0, 0], np.float32).reshape(5, 1, 1)  # a cell without a face
FARTHEST = 1e4  # cells from a cell to the centre of its face
PIXEL_BLUR = 0.5  # px: standard deviation of what a pixel sees, which grows by blurring as the picture shrinks (Lowe, 2004)
NO_BLUR = 0.95  # scale from which there is nothing to blur


@dataclass(frozen=True)
class PlattScaling:
    """What makes of a score the probability that the box is right (Platt, 1999): sigmoid(slope x logit + shift)."""

    slope: float
    shift: float

    def to_probability(self, scores: np.ndarray) -> np.ndarray:
        """Map scores (n,), 0..1 without the ends, to probabilities (n,)."""
        return _sigmoid(self.slope * np.log(scores / (1 - scores)) + self.shift)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "PlattScaling":
        """Raises ValueError, KeyError or TypeError if the text is not what `to_json` writes."""
        try:
            fields = json.loads(text)
            calibration = cls(float(fields["slope"]), float(fields["shift"]))
        except (OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if not (math.isfinite(calibration.slope) and math.isfinite(calibration.shift)):
            raise ValueError("slope or shift is not finite")
        return calibration


class CenterFaceDetector:
    """An anchor-free single-shot detector; one cell of its output for every 4x4 pixels of its input."""

    FILE_NAME = "masked_faces_ssd.onnx"
    METADATA_NAME = "face_detector"  # of `PlattScaling` in the ONNX file, which tells it from others
    SOURCE_NAME = "float32_sha256"  # in a file with 8-bit integers, of the float32 file that it was made from
    SIZE = 512  # px, longest side of the picture as the network sees it
    MULTIPLE = 32  # px, of which the input's sides are multiples
    SMALLEST_INPUT = 64  # px a side: on less, OpenCV 5's convolutions err
    STRIDE = 4  # px a cell
    MIN_SCORE = 0.03  # of a cell, from which it may be a face
    MAX_CANDIDATES = 2000  # or twice as many as are to be given
    IOU_THRESHOLD = 0.55  # intersection over union of two boxes from which the weaker is dropped
    # Looking again, from afar, for large faces:
    AFAR = 3 / 8  # against the look before
    NO_FARTHER = 256  # px, longest side of the input at which there is no more such look
    LARGE_FACE = 20  # px high in that input: smaller ones the look before sees better
    # Looking again, closer, at crowds:
    ZOOM = 2  # against the look before
    SMALL_FACE = 16  # px high in the network's input: it is taken from a closer look, if there is one
    CROWD = 6  # small faces that call for it
    SURE = 0.3  # confidence with which they must be seen
    MAX_ENLARGEMENT = 3.0  # of the picture's own pixels
    TILE_OVERLAP = 64  # px: a small face is whole in one tile at least
    TILES_AT_ONCE = 4  # bounds the memory

    def __init__(
        self, run: Run, calibration: PlattScaling, size: int = SIZE, tiles: bool = False, max_faces: int = MAX_FACES
    ) -> None:
        """`run` takes float32 (n, 3, H, W) RGB 0..255 and returns (n, 5, H/4, W/4)."""
        self.size, self.tiles, self.max_faces = size, tiles, max_faces
        self.run, self._calibration = run, calibration

    @classmethod
    def load(
        cls, path: str | Path, size: int = SIZE, tiles: bool = False, threads: int = 0, max_faces: int = MAX_FACES
    ) -> "CenterFaceDetector":
        """Load the ONNX file; the other arguments as in `load_face_detector`. Raises InputError if it is broken."""
        path = Path(path)
        model = read_model(path)
        try:
            calibration = PlattScaling.from_json(read_onnx_metadata(BytesIO(model))[cls.METADATA_NAME])
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not this face detector ({error}); copy face_detector/ again") from error
        run, _ = open_onnx(model, path, threads)
        detector = cls(run, calibration, size, tiles, max_faces)
        side = cls.SMALLEST_INPUT
        try:
            cells = np.asarray(detector.run(np.zeros((1, 3, side, side), np.float32)), np.float32)
        except Exception as error:  # onnxruntime's and OpenCV's have no common base below it
            raise InputError(f"{path}: not this face detector (it cannot see a picture); copy face_detector/ again") from error
        expected = (1, 5, side // cls.STRIDE, side // cls.STRIDE)
        if cells.shape != expected:
            raise InputError(f"{path}: not this face detector (output {cells.shape}, not {expected}); copy face_detector/ again")
        return detector

    def detect(self, image: np.ndarray, confidence: float = 0.5) -> list[Face]:
        """Find the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, surest first."""
        height, width = image.shape[:2]
        scale = self.size / max(height, width)
        least = min(confidence, self.SURE) if self.tiles else confidence
        resized = _resize(image, scale)
        boxes, scores = self._look([resized], least)[0]
        boxes = boxes / scale
        if self.tiles:
            boxes, scores = self._look_closer(image, scale, boxes, scores, least)
        boxes_afar, scores_afar = self._look_from_afar(resized, confidence)
        boxes, scores = np.concatenate([boxes, boxes_afar / scale]), np.concatenate([scores, scores_afar])
        candidates = max(self.MAX_CANDIDATES, 2 * self.max_faces)
        boxes, scores = nms(boxes, scores, confidence, self.IOU_THRESHOLD, candidates, self.max_faces)
        boxes, kept = clip_boxes(boxes, width, height)
        return [Face(tuple(box), float(score)) for box, score in zip(boxes.tolist(), scores[kept], strict=True)]

    def _look_from_afar(self, image: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Find large faces, of which the network sees too little at once in `image`; boxes (n, 4) in its px, scores (n,)."""
        found_boxes, found_scores = [np.empty((0, 4))], [np.empty(0)]
        scale = 1.0
        while max(image.shape[:2]) > self.NO_FARTHER:
            image, scale = _resize(image, self.AFAR), scale * self.AFAR
            boxes, scores = self._look([image], confidence)[0]
            large = boxes[:, 3] - boxes[:, 1] >= self.LARGE_FACE
            found_boxes.append(boxes[large] / scale)
            found_scores.append(scores[large])
        return np.concatenate(found_boxes), np.concatenate(found_scores)

    def _look_closer(
        self, image: np.ndarray, scale: float, boxes: np.ndarray, scores: np.ndarray, confidence: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Replace the small ones of `boxes` (n, 4), px of `image`, by those seen in tiles, while there is a crowd of them."""
        tiles_a_side = 1
        while scale * self.ZOOM <= self.MAX_ENLARGEMENT:
            small = (boxes[:, 3] - boxes[:, 1]) * scale < self.SMALL_FACE
            if np.count_nonzero(small & (scores >= self.SURE)) < self.CROWD:
                break
            scale, tiles_a_side = scale * self.ZOOM, tiles_a_side * self.ZOOM
            tiles, corners = cut_tiles(_resize(image, scale), tiles_a_side, self.TILE_OVERLAP)
            boxes, scores = [boxes[~small]], [scores[~small]]
            for start in range(0, len(tiles), self.TILES_AT_ONCE):
                part = slice(start, start + self.TILES_AT_ONCE)
                for (tile_boxes, tile_scores), corner in zip(self._look(tiles[part], confidence), corners[part], strict=True):
                    # What is larger was whole in the look before, and may not be in a tile.
                    kept = tile_boxes[:, 3] - tile_boxes[:, 1] < self.SMALL_FACE * self.ZOOM * 1.2
                    boxes.append((tile_boxes[kept] + corner * 2) / scale)
                    scores.append(tile_scores[kept])
            boxes, scores = np.concatenate(boxes), np.concatenate(scores)
        return boxes, scores

    def _look(self, images: Sequence[np.ndarray], confidence: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Run the network on `images`, uint8 (H, W, 3) BGR of one size; boxes (k, 4) in px and scores (k,) for each."""
        size = images[0].shape[:2]
        height, width = (max(-(-side // self.MULTIPLE) * self.MULTIPLE, self.SMALLEST_INPUT) for side in size)
        padded = np.zeros((len(images), height, width, 3), np.uint8)
        padded[:, : size[0], : size[1]] = images
        try:
            cells = self.run(cv2.dnn.blobFromImages(list(padded), swapRB=True))
        except Exception as error:  # as in load
            raise InputError("the face detector: cannot see some pictures; copy face_detector/ again") from error
        if cells.shape != (len(images), 5, height // self.STRIDE, width // self.STRIDE):
            raise InputError("the face detector: gives no faces of some pictures; copy face_detector/ again")
        found = []
        for one in cells:
            boxes, scores = decode(one, self.MIN_SCORE, self.STRIDE)
            confidences = self._calibration.to_probability(scores)
            kept = confidences >= confidence
            found.append((boxes[kept], confidences[kept]))
        return found


def int8_file(file: Path) -> Path:
    """Return where the same network with 8-bit integers lies."""
    return file.with_suffix(".int8.onnx")


def decode(cells: np.ndarray, min_score: float, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn the network's output into boxes (n, 4), x1, y1, x2, y2 in px of its input, and scores (n,), 0..1.

    `cells` is (5, rows, columns): score (logit), the face's centre from the cell's, y and x in cells, log of its height
    and width in cells. A cell whose score is at least `min_score` and no neighbour's is higher is a face, as in CenterNet
    (Zhou et al., "Objects as Points", 2019). Its box is the mean of those that the cells around it tell, weighted by
    their scores. Its score grows with how well those boxes agree and with how much it stands out among the cells: both
    tell a box that is right (face_detector/README.md has the figures). Cells with a value that is not finite tell nothing.
    """
    cells = np.where(np.isfinite(cells).all(axis=0), cells, SILENT)
    logits = cells[0]
    rows, columns = np.nonzero((logits >= _logit(min_score)) & (logits >= cv2.dilate(logits, np.ones((3, 3), np.uint8))))
    if not len(rows):
        return np.empty((0, 4), np.float32), np.empty(0, np.float32)
    steps = np.mgrid[-REACH_CELLS : REACH_CELLS + 1, -REACH_CELLS : REACH_CELLS + 1].reshape(2, -1, 1)
    steps = steps[:, np.hypot(*steps[..., 0]) <= REACH_CELLS]  # (2, k, 1)
    y, x = rows + steps[0], columns + steps[1]  # (k, n): the cells around each face's own
    inside = (y >= 0) & (y < logits.shape[0]) & (x >= 0) & (x < logits.shape[1])
    y, x = np.clip(y, 0, logits.shape[0] - 1), np.clip(x, 0, logits.shape[1] - 1)
    near = cells[:, y, x]  # (5, k, n)
    boxes = _boxes(near, y, x)  # (k, n, 4)
    size = np.exp(np.clip(cells[3:, rows, columns], -5, 8).mean(axis=0))  # of the face, in cells
    weights = _sigmoid(near[0]) * (inside & (np.hypot(*steps) <= np.maximum(REACH * size, LEAST_REACH)))
    total = weights.sum(axis=0)
    box = (boxes * weights[..., None]).sum(axis=0) / total[:, None]
    agreement = (_overlap(boxes, box) * weights).sum(axis=0) / total
    peak = _sigmoid(logits[rows, columns])
    standing_out = peak * np.count_nonzero(weights, axis=0) / total
    return box * stride, np.clip(peak * agreement * standing_out**STANDING_OUT, LOWEST_SCORE, HIGHEST_SCORE)


def _boxes(cells: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the boxes (..., 4), in cells, that cells (5, ...) at those rows and columns tell."""
    away = np.clip(cells[1:3], -FARTHEST, FARTHEST)
    centre = np.stack([columns + 0.5 + away[1], rows + 0.5 + away[0]], axis=-1)
    half = np.exp(np.clip(np.stack([cells[4], cells[3]], axis=-1), -5, 8)) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (..., 4) and others of a shape that goes with theirs."""
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    intersection = np.clip(sides, 0, None).prod(axis=-1)
    areas = [(array[..., 2:] - array[..., :2]).prod(axis=-1) for array in (boxes, others)]
    return intersection / (areas[0] + areas[1] - intersection)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def cut_tiles(image: np.ndarray, count: int, overlap: int) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Cut `image` (H, W, 3) into `count` x `count` tiles of one size that overlap by about `overlap` px.

    Returns views, and the x, y of their upper left corners.
    """
    height, width = (min(math.ceil(side / count) + overlap, side) for side in image.shape[:2])
    rows = np.linspace(0, image.shape[0] - height, count).round().astype(int).tolist()
    columns = np.linspace(0, image.shape[1] - width, count).round().astype(int).tolist()
    corners = [(x, y) for y in rows for x in columns]
    return [image[y : y + height, x : x + width] for x, y in corners], corners


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image; smaller as INTER_AREA does it, in a third of the time: halved, then blurred and interpolated."""
    while scale <= 0.5 and min(image.shape[:2]) > 1:
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        scale *= 2
    if scale < NO_BLUR:
        image = cv2.GaussianBlur(image, (3, 3), PIXEL_BLUR * math.sqrt(1 / scale**2 - 1))
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
