"""This project's own face detector: small faces, crowds and masks (face_detector/README.md)."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import MAX_FACES, clip_boxes, nms
from facemask.errors import InputError
from facemask.models.devices import CPU, Device, DeviceError
from facemask.models.model_file import ModelFile, as_model_file
from facemask.models.onnx_session import Run, open_onnx
from facemask.types import Face

# Box voting: a face's box is the mean of the boxes that the cells around its peak predict.
VOTE_RADIUS = 0.25  # of the face's size: cells so near to the peak vote
MIN_VOTE_RADIUS, MAX_VOTE_RADIUS = 1.5, 5  # cells: the eight neighbours always vote, none farther than the maximum does
VOTERS = np.mgrid[-MAX_VOTE_RADIUS : MAX_VOTE_RADIUS + 1, -MAX_VOTE_RADIUS : MAX_VOTE_RADIUS + 1].reshape(2, -1, 1)
VOTERS = VOTERS[:, np.hypot(*VOTERS[..., 0]) <= MAX_VOTE_RADIUS]  # (2, k, 1): steps in cells, down and across, from a peak
VOTER_DISTANCES = np.hypot(*VOTERS)  # (k, 1), in cells
PEAKINESS_EXPONENT = 0.4  # power, in a face's score, of its peak's ratio to the mean of the voting cells
MIN_DECODED_SCORE, MAX_DECODED_SCORE = 1e-6, 0.999  # of which `PlattScaling` makes a probability
BACKGROUND = np.array([-60, 0, 0, 0, 0], np.float32).reshape(5, 1, 1)  # the output of a cell without a face
MAX_OFFSET = 1e4  # cells from a cell to the centre of its face
PIXEL_SIGMA = 0.5  # px: standard deviation of a pixel's own blur, which grows as an image shrinks (Lowe, 2004)
MIN_UNBLURRED_SCALE = 0.95  # from this scale on an image is not blurred


@dataclass(frozen=True)
class PlattScaling:
    """Turns a score into the probability that its box is right: sigmoid(slope x logit + shift) (Platt, 1999)."""

    slope: float = 1.0  # with a shift of 0 the score stays as it is
    shift: float = 0.0

    def to_probability(self, scores: np.ndarray) -> np.ndarray:
        """Map scores (n,), above 0 and below 1, to probabilities (n,)."""
        return _sigmoid(self.slope * np.log(scores / (1 - scores)) + self.shift)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "PlattScaling":
        """Read what `to_json` writes. Raises ValueError, KeyError or TypeError for any other text."""
        try:
            fields = json.loads(text)
            calibration = cls(float(fields["slope"]), float(fields["shift"]))
        except (OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if not (math.isfinite(calibration.slope) and math.isfinite(calibration.shift)):
            raise ValueError("slope or shift is not finite")
        return calibration


@dataclass(frozen=True)
class CenterFaceDetector:
    """An anchor-free single-shot detector: its output has one cell for every 4x4 pixels of its input.

    Calls change nothing in it, so several threads may use it at once.
    """

    run: Run  # float32 (n, 3, H, W) RGB 0..255 -> (n, 5, H/4, W/4)
    calibration: PlattScaling
    size: int = 576  # px: longest side to which an image is scaled, unless a call says otherwise
    tiles: bool = False  # infer the parts with small faces again, enlarged
    max_faces: int = MAX_FACES  # returned for one image; the most confident are kept
    name: str = ""  # of the file that it was loaded from

    FILE_NAME = "masked_faces_ssd.onnx"
    METADATA_NAME = "face_detector"  # key of `PlattScaling` in the ONNX file, which tells it from others
    MULTIPLE = 32  # px: the input's sides are multiples of it
    MAX_STRETCH = 0.06  # of a side, to make it such a multiple; otherwise the image is padded
    MIN_INPUT = 64  # px a side: on less, OpenCV 5's convolutions err
    STRIDE = 4  # px a cell
    MIN_SCORE = 0.03  # of a cell, from which it may be a face
    MAX_CANDIDATES = 2000  # before non-maximum suppression, or twice `max_faces`
    IOU_THRESHOLD = 0.55  # of two boxes, from which the weaker one is dropped
    # Downscaled inference, for faces larger than the network's receptive field:
    DOWNSCALE = 3 / 8  # from one scale to the next
    MIN_DOWNSCALED_SIDE = 256  # px: an input whose longest side is at most this is not downscaled again
    MIN_LARGE_FACE = 20  # px high in the downscaled input: smaller faces come from the scale above
    # Tiled inference, for small faces:
    ZOOM = 2  # from one scale to the next
    MAX_SMALL_FACE = 16  # px high in the network's input: smaller faces come from the tiles, if there are any
    # Small faces expected in a tile (the sum of their confidences) from which it is inferred. In a crowd of tiny faces the
    # confidence of each is low, but there are many: docs/experiments.md compares this with counts of confident faces.
    MIN_EXPECTED_FACES = 0.4
    MIN_EXPECTED_CONFIDENCE = 0.02  # of a face that is counted
    MAX_SCALE = 3.0  # of the image's own pixels
    TILE_OVERLAP = 64  # px: each small face is whole in at least one tile
    TILE_BATCH = 4  # tiles a network call: bounds the memory

    @classmethod
    def load(
        cls,
        model: ModelFile | str | Path,
        size: int | None = None,
        tiles: bool = False,
        threads: int = 0,
        max_faces: int = MAX_FACES,
        device: Device = CPU,
    ) -> "CenterFaceDetector":
        """Load the ONNX file; the other arguments are those of `load_face_detector`.

        Raises InputError if it is corrupt, and DeviceError as `open_onnx` does.
        """
        model = as_model_file(model)
        path = model.path
        try:
            calibration = PlattScaling.from_json(model.metadata[cls.METADATA_NAME])
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not this face detector ({error}); copy face_detector/ again") from error
        run, _ = open_onnx(model, threads, device)
        detector = cls(run, calibration, size or cls.size, tiles, max_faces, path.name)
        side = cls.MIN_INPUT
        try:
            output = np.asarray(run(np.zeros((1, 3, side, side), np.float32)), np.float32)
        except DeviceError:
            raise
        except Exception as error:  # onnxruntime's and OpenCV's have no common base below it
            raise InputError(f"{path}: not this face detector (it cannot run on an image); copy face_detector/ again") from error
        expected = (1, 5, side // cls.STRIDE, side // cls.STRIDE)
        if output.shape != expected:
            raise InputError(f"{path}: not this face detector (output {output.shape}, not {expected}); copy face_detector/ again")
        return detector

    def detect(self, image: np.ndarray, confidence: float = 0.5, size: int | None = None) -> list[Face]:
        """Detect the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, 0..1, most confident first.

        `size` is the longest side in px to which the image is scaled (None: the detector's `size`).
        """
        height, width = image.shape[:2]
        scale = (size or self.size) / max(height, width)
        min_confidence = min(confidence, self.MIN_EXPECTED_CONFIDENCE) if self.tiles else confidence
        resized, factors = self.resize(image, scale)
        boxes, scores = self.infer([resized], min_confidence)[0]
        boxes = boxes / factors
        if self.tiles:
            boxes, scores = self.infer_tiles(image, scale, boxes, scores, min_confidence)
        large_boxes, large_scores = self.infer_downscaled(resized, confidence)
        boxes, scores = np.concatenate([boxes, large_boxes / factors]), np.concatenate([scores, large_scores])
        candidates = max(self.MAX_CANDIDATES, 2 * self.max_faces)
        boxes, scores = nms(boxes, scores, confidence, self.IOU_THRESHOLD, candidates, self.max_faces)
        boxes, kept = clip_boxes(boxes, width, height)
        return [Face(tuple(box), float(score)) for box, score in zip(boxes.tolist(), scores[kept], strict=True)]

    def resize(self, image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Scale an image by about `scale`, to sides that are multiples of MULTIPLE if they stretch little: padding costs time.

        Returns the image and the factors (4,) that map boxes of the image to it.
        """
        sides = np.multiply(image.shape[:2], scale)
        fitting = np.floor(sides / self.MULTIPLE + 0.5) * self.MULTIPLE  # the nearest, the larger of two
        sides = np.where(np.abs(fitting / sides - 1) <= self.MAX_STRETCH, fitting, np.maximum(np.rint(sides), 1)).astype(int)
        factors = np.divide(sides, image.shape[:2])[[1, 0, 1, 0]]
        return _resize(image, scale, tuple(sides.tolist())), factors

    def infer(self, images: Sequence[np.ndarray], confidence: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Run the network on `images`, uint8 (H, W, 3) BGR of one size; returns boxes (k, 4) in px and scores (k,) of each.

        Raises InputError if the network fails.
        """
        inputs = self.preprocess(images)
        try:
            outputs = self.run(inputs)
        except DeviceError:
            raise
        except Exception as error:  # as in load
            raise InputError("the face detector: cannot run on some images; copy face_detector/ again") from error
        if outputs.shape != (len(images), 5, inputs.shape[2] // self.STRIDE, inputs.shape[3] // self.STRIDE):
            raise InputError("the face detector: gives no faces of some images; copy face_detector/ again")
        return [self.postprocess(output, confidence) for output in outputs]

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return images, uint8 (h, w, 3) BGR of one size, as float32 (n, 3, H, W) RGB, padded on the right and below."""
        size = images[0].shape[:2]
        height, width = (max(-(-side // self.MULTIPLE) * self.MULTIPLE, self.MIN_INPUT) for side in size)
        inputs = np.zeros((len(images), 3, height, width), np.float32)
        for image, planes in zip(images, inputs, strict=True):
            for channel, plane in zip(cv2.split(image), planes[::-1], strict=True):
                plane[: size[0], : size[1]] = channel
        return inputs

    def postprocess(self, output: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes (k, 4), px of the input, and calibrated scores (k,) of one output (5, rows, columns)."""
        boxes, scores = decode(output, self.MIN_SCORE, self.STRIDE)
        confidences = self.calibration.to_probability(scores)
        kept = confidences >= confidence
        return boxes[kept], confidences[kept]

    def infer_downscaled(self, image: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Detect faces too large for the network in `image` at smaller scales; boxes (n, 4) in its px, scores (n,)."""
        all_boxes, all_scores = [np.empty((0, 4))], [np.empty(0)]
        factors = np.ones(4)
        while max(image.shape[:2]) > self.MIN_DOWNSCALED_SIDE:
            image, more = self.resize(image, self.DOWNSCALE)
            factors = factors * more
            boxes, scores = self.infer([image], confidence)[0]
            large = boxes[:, 3] - boxes[:, 1] >= self.MIN_LARGE_FACE
            all_boxes.append(boxes[large] / factors)
            all_scores.append(scores[large])
        return np.concatenate(all_boxes), np.concatenate(all_scores)

    def infer_tiles(
        self, image: np.ndarray, scale: float, boxes: np.ndarray, scores: np.ndarray, confidence: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Replace the small ones of `boxes` (n, 4), px of `image`, by those of enlarged tiles in which some are expected.

        `scale` is that at which `boxes` and their `scores` (n,) were found.
        """
        tiles_a_side = 1
        while scale * self.ZOOM <= self.MAX_SCALE:
            small = (boxes[:, 3] - boxes[:, 1]) * scale < self.MAX_SMALL_FACE
            scale, tiles_a_side = scale * self.ZOOM, tiles_a_side * self.ZOOM
            windows = tile_windows(_scaled_size(image, scale), tiles_a_side, self.TILE_OVERLAP, self.MULTIPLE)
            inside = _are_inside(boxes * scale, windows) & small  # (tiles, n)
            inferred = inside @ scores >= self.MIN_EXPECTED_FACES
            if not inferred.any():
                break
            replaced = inside[inferred].any(axis=0)
            windows, enlarged = windows[inferred], _resize(image, scale)
            all_boxes, all_scores = [boxes[~replaced]], [scores[~replaced]]
            for start in range(0, len(windows), self.TILE_BATCH):
                batch = windows[start : start + self.TILE_BATCH]
                tiles = [enlarged[y1:y2, x1:x2] for x1, y1, x2, y2 in batch.tolist()]
                for (tile_boxes, tile_scores), corner in zip(self.infer(tiles, confidence), batch[:, :2], strict=True):
                    # Larger faces were found at the scale before, and may be cut by a tile's edge.
                    kept = tile_boxes[:, 3] - tile_boxes[:, 1] < self.MAX_SMALL_FACE * self.ZOOM * 1.2
                    all_boxes.append((tile_boxes[kept] + np.tile(corner, 2)) / scale)
                    all_scores.append(tile_scores[kept])
            boxes, scores = np.concatenate(all_boxes), np.concatenate(all_scores)
        return boxes, scores


def decode(output: np.ndarray, min_score: float, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn the network's output into boxes (n, 4), x1, y1, x2, y2 in px of its input, and scores (n,), 0..1.

    `output` is (5, rows, columns): a heatmap of scores (logits), the offsets y and x in cells from each cell's centre to
    its face's, and the logarithms of the face's height and width in cells. A cell whose score is at least `min_score` and
    not lower than its neighbours' is a peak, hence a face, as in CenterNet (Zhou et al., "Objects as Points", 2019). Its
    box is the mean of the boxes that the cells around it predict, weighted by their scores. Its score grows with how well
    these boxes agree and with how far the peak stands out from the cells around it: both predict a box that is right
    (face_detector/README.md has the figures). Cells with a value that is not finite do not vote.
    """
    if not np.isfinite(output).all():
        output = np.where(np.isfinite(output).all(axis=0), output, BACKGROUND)
    heatmap = output[0]
    rows, columns = np.nonzero((heatmap >= _logit(min_score)) & (heatmap >= cv2.dilate(heatmap, np.ones((3, 3), np.uint8))))
    if not len(rows):
        return np.empty((0, 4), np.float32), np.empty(0, np.float32)
    size = np.exp(np.clip(output[3:, rows, columns], -5, 8).mean(axis=0))  # of the face, in cells
    radius = np.maximum(VOTE_RADIUS * size, MIN_VOTE_RADIUS)  # cells
    near = VOTER_DISTANCES[:, 0] <= radius.max()  # cells that are too far from all peaks are left out
    y, x = rows + VOTERS[0, near], columns + VOTERS[1, near]  # (k, n): the cells around each peak
    inside = (y >= 0) & (y < heatmap.shape[0]) & (x >= 0) & (x < heatmap.shape[1])
    y, x = np.clip(y, 0, heatmap.shape[0] - 1), np.clip(x, 0, heatmap.shape[1] - 1)
    voters = output[:, y, x]  # (5, k, n)
    boxes = _cell_boxes(voters, y, x)  # (k, n, 4)
    weights = _sigmoid(voters[0]) * (inside & (radius >= VOTER_DISTANCES[near]))
    total = weights.sum(axis=0)
    box = (boxes * weights[..., None]).sum(axis=0) / total[:, None]
    agreement = (_iou(boxes, box) * weights).sum(axis=0) / total
    peak = _sigmoid(heatmap[rows, columns])
    peakiness = peak * np.count_nonzero(weights, axis=0) / total
    return box * stride, np.clip(peak * agreement * peakiness**PEAKINESS_EXPONENT, MIN_DECODED_SCORE, MAX_DECODED_SCORE)


def _cell_boxes(output: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the boxes (..., 4), in cells, that the outputs (5, ...) of the cells at those rows and columns predict."""
    offsets = np.clip(output[1:3], -MAX_OFFSET, MAX_OFFSET)
    centre = np.stack([columns + 0.5 + offsets[1], rows + 0.5 + offsets[0]], axis=-1)
    half = np.exp(np.clip(np.stack([output[4], output[3]], axis=-1), -5, 8)) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (..., 4) and others of a shape that broadcasts with theirs."""
    sides = np.maximum(np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2]), 0)
    intersection = sides[..., 0] * sides[..., 1]
    sizes, other_sizes = boxes[..., 2:] - boxes[..., :2], others[..., 2:] - others[..., :2]
    return intersection / (sizes[..., 0] * sizes[..., 1] + other_sizes[..., 0] * other_sizes[..., 1] - intersection)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def tile_windows(size: tuple[int, int], count: int, overlap: int, multiple: int = 1) -> np.ndarray:
    """Return the windows of `count` x `count` tiles of one size that cover an image of `size` (height, width) px.

    They overlap by at least `overlap` px, and their sides are multiples of `multiple` px where the image is that large;
    int (count^2, 4) x1, y1, x2, y2 in px.
    """
    height, width = (min(math.ceil((side / count + overlap) / multiple) * multiple, side) for side in size)
    top = np.linspace(0, size[0] - height, count).round().astype(int)
    left = np.linspace(0, size[1] - width, count).round().astype(int)
    left, top = (array.ravel() for array in np.meshgrid(left, top))
    return np.column_stack([left, top, left + width, top + height])


def _are_inside(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Return which windows (m, 4) the centres of boxes (n, 4) lie in; (m, n) bool."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres >= windows[:, None, :2]) & (centres < windows[:, None, 2:])).all(axis=2)


def _scaled_size(image: np.ndarray, scale: float) -> tuple[int, int]:
    """Return the height and width in px of an image that is scaled by `scale`."""
    height, width = image.shape[:2]
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resize(image: np.ndarray, scale: float, size: tuple[int, int] | None = None) -> np.ndarray:
    """Scale an image by `scale`, to `size` (height, width) px (None: that of its sides times `scale`, rounded).

    Shrinks as INTER_AREA does, in a third of the time: it is halved while it can be, then blurred and interpolated.
    """
    height, width = size or _scaled_size(image, scale)
    while scale <= 0.5 and min(image.shape[:2]) > 1:
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        scale *= 2
    if scale < MIN_UNBLURRED_SCALE:
        image = cv2.GaussianBlur(image, (3, 3), PIXEL_SIGMA * math.sqrt(1 / scale**2 - 1))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
