"""Detect the faces in an image or an image file, and classify their masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from facemask.io.images import MAX_PIXELS, EncodedImage
from facemask.models.center_face import CenterFaceDetector
from facemask.models.face_detectors import FaceDetector
from facemask.models.mask_classifier import MaskClassifier
from facemask.turns import turn_box, turn_left
from facemask.types import Box, Detection, Face, FileResult

HIDE_CONFIDENCE = 0.1  # from which a face is hidden, though less confident ones than asked for are not reported
MAX_HIDE_SIZE = 2048  # px to which the longest side is scaled to find them: bounds the memory

MIN_REDUCED_SIDE = 1920  # px: the longest side of a JPEG decoded reduced is at least this
MIN_REDUCED_FACE = 32  # px high in an image decoded reduced: if a face is smaller, the whole image is decoded
# Part of a confidence that the classifier can take at most, by the longer side of the face's box in px: between these sides it
# grows evenly. About one face in ten looks like background to it, most of them a few pixels small (docs/experiments.md).
BACKGROUND_TRUST_SIDES, BACKGROUND_TRUST = (8, 32), (0.3, 0.98)

# Is the image turned? Turned faces are found with less confidence, or not at all. docs/experiments.md compares these values.
# Mean confidence of the faces, weighted by itself and by their height, from which the image is taken as upright.
UPRIGHT_CONFIDENCE = 0.82
MIN_UPRIGHT_CONFIDENCE = 0.05  # of a face that counts for it
# The image turned by 90, 180 and 270 degrees is inferred at a part of the face detector's size: such that its faces are about
# TURN_FACE px high, within these limits.
TURN_FACE, MIN_TURN_SCALE, MAX_TURN_SCALE = 20, 0.25, 0.5
MIN_TURN_CONFIDENCE = 0.3  # of a face that counts as evidence for an angle
MIN_TURN_EVIDENCE = 0.5  # that an angle must have more than the image as it is, so small: sum of its faces' squared confidences


@dataclass(frozen=True)
class MaskDetector:
    """Both networks, loaded. Calls change nothing in it, so several threads may use it at once."""

    faces: FaceDetector
    classifier: MaskClassifier
    turned_faces: FaceDetector | None = None  # detects in images turned by 90, 180 and 270 degrees; None: all are upright

    def detect(self, image: np.ndarray, confidence: float = 0.5, size: int | None = None) -> list[Detection]:
        """Detect and classify the faces in `image`, uint8 (H, W, 3) BGR; returns them most confident first.

        `confidence`, 0..1, is the minimum of a detection. `size` is the longest side in px to which the face detector scales
        the image (None: its default). Raises InputError if a network cannot process the image.
        """
        turns, upright, faces = self._detect_upright(image, confidence, size)
        return turn_detections(self.classify(upright, faces, confidence), -turns, upright)

    def detect_file(
        self,
        source: str | Path | EncodedImage,
        confidence: float = 0.5,
        size: int | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        keep_image: bool = False,
        hide: bool = False,
    ) -> FileResult:
        """Read an image file, unless `source` is one that is read, and detect and classify its faces.

        A large JPEG is decoded at a half, quarter or eighth of its sides, its longest side being at least
        `MIN_REDUCED_SIDE` and `size`. If a face is lower than `MIN_REDUCED_FACE` there, the whole image is decoded and
        the faces are detected again. `confidence` and `size` are those of `detect`. The result has the whole image if
        `keep_image`, and then with `hide` the boxes to hide (`find_hidden`); the detections are the same with and without.
        Raises InputError if the file cannot be read, or has more than `max_pixels` pixels.
        """
        encoded = source if isinstance(source, EncodedImage) else EncodedImage.read(source, max_pixels)
        scale = encoded.decode_scale(max(MIN_REDUCED_SIDE, size or self.faces.size))
        turns, upright, faces = self._detect_upright(encoded.decode(scale), confidence, size)
        if scale > 1 and any(face.box[3] - face.box[1] < MIN_REDUCED_FACE for face in faces):
            scale, upright = 1, turn_left(encoded.decode(), turns)
            faces = self.faces.detect(upright, confidence, size)
        detections = turn_detections(self.classify(upright, faces, confidence), -turns, upright)
        if scale > 1:
            detections = enlarge(detections, scale, encoded.width, encoded.height)
        is_truncated = len(faces) == self.faces.max_faces
        image, hidden = None, []
        if keep_image:
            image = encoded.decode() if scale > 1 else turn_left(upright, -turns)
            hidden = self.find_hidden(image, detections, size, turns) if hide else []
        return FileResult(encoded.width, encoded.height, detections, is_truncated, image, hidden)

    def _detect_upright(self, image: np.ndarray, confidence: float, size: int | None) -> tuple[int, np.ndarray, list[Face]]:
        """Return the quarter turns to the left that make `image` upright, the upright image, and the faces in it."""
        if self.turned_faces is None:
            return 0, image, self.faces.detect(image, confidence, size)
        faces = self.faces.detect(image, min(confidence, MIN_UPRIGHT_CONFIDENCE), size)
        turns = self.find_turns(image, faces, size)
        if turns:
            image = turn_left(image, turns)
            faces = self.faces.detect(image, confidence, size)
        return turns, image, [face for face in faces if face.confidence >= confidence]

    def find_turns(self, image: np.ndarray, faces: Sequence[Face], size: int | None = None) -> int:
        """Return by how many quarter turns to the left `image`, uint8 (H, W, 3) BGR, must be turned to be upright, 0 to 3.

        `faces` are those found in the image as it is, from `MIN_UPRIGHT_CONFIDENCE`. If they are not confident on the whole,
        the image is inferred turned, at a smaller size. It counts as turned only if that shows clearly more faces.
        """
        if self.turned_faces is None:
            return 0
        detect = self.turned_faces.detect
        faces = [face for face in faces if face.confidence >= MIN_UPRIGHT_CONFIDENCE]
        side, turn_scale = size or self.faces.size, MAX_TURN_SCALE
        if faces:
            heights = np.array([face.box[3] - face.box[1] for face in faces]) * side / max(image.shape[:2])
            confidences = np.array([face.confidence for face in faces])
            weights = confidences * heights
            if np.average(confidences, weights=weights) >= UPRIGHT_CONFIDENCE:
                return 0
            turn_scale = np.clip(TURN_FACE / np.average(heights, weights=weights), MIN_TURN_SCALE, MAX_TURN_SCALE)
        side = round(side * float(turn_scale))
        small = shrink(image, side)

        def evidence(turns: int) -> float:
            return sum(face.confidence**2 for face in detect(turn_left(small, turns), MIN_TURN_CONFIDENCE, side))

        best, most = max(((turns, evidence(turns)) for turns in (1, 2, 3)), key=lambda pair: pair[1])
        return best if most > MIN_TURN_EVIDENCE and most > evidence(0) + MIN_TURN_EVIDENCE else 0

    def find_hidden(
        self, image: np.ndarray, detections: Sequence[Detection], size: int | None = None, turns: int = 0
    ) -> list[Box]:
        """Return the boxes to pixelate in `image`, uint8 (H, W, 3) BGR: of `detections`, and of less confident faces.

        The latter are those from HIDE_CONFIDENCE, in the image scaled to `size`; None is at least half its size, as small
        faces can be recognized too. They are detected in the image turned to the left by `turns` quarter turns.
        """
        if size is None and isinstance(self.faces, CenterFaceDetector):  # the res10 SSD has one size
            size = max(self.faces.size, min(max(image.shape[:2]) // 2, MAX_HIDE_SIZE))
        upright = turn_left(image, turns)
        faces = self.faces.detect(upright, HIDE_CONFIDENCE, size)
        return [*(detection.box for detection in detections), *(turn_box(face.box, -turns, upright) for face in faces)]

    def classify(self, image: np.ndarray, faces: Sequence[Face], confidence: float = 0.0) -> list[Detection]:
        """Classify the masks of `faces` in `image`, uint8 (H, W, 3) BGR; returns them most confident first.

        If the classifier has a background class, it verifies the confidence of each detection (`verification`), and
        detections below `confidence` are dropped.
        """
        if not faces:
            return []
        boxes = [face.box for face in faces]
        rows, face_probabilities = self.classifier.classify_and_verify(image, boxes)
        factors = verification(face_probabilities, boxes)
        detections = []
        for face, row, factor in zip(faces, rows.tolist(), factors.tolist(), strict=True):
            verified = face.confidence * factor
            if verified < min(confidence, face.confidence):
                continue
            probabilities = dict(zip(self.classifier.info.labels, row, strict=True))
            label = max(probabilities, key=probabilities.__getitem__)
            detections.append(Detection(face.box, verified, label, probabilities[label], probabilities))
        return sorted(detections, key=lambda detection: -detection.confidence)


def verification(face_probabilities: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Return what the confidences of a face detector in `boxes` (px) are multiplied by, (n,), 0..1.

    `face_probabilities` (n,), 0..1, are those of the classifier that the boxes show faces. Both must agree, but
    BACKGROUND_TRUST bounds what the classifier can take, most for small faces: sets of them keep their ranking.
    """
    sides = [max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
    return 1 - np.interp(sides, BACKGROUND_TRUST_SIDES, BACKGROUND_TRUST) * (1 - face_probabilities)


def turn_detections(detections: Sequence[Detection], turns: int, image: np.ndarray) -> list[Detection]:
    """Return detections in `image`, (H, W, C), as those in the image turned to the left by `turns` quarter turns."""
    return [replace(detection, box=turn_box(detection.box, turns, image)) for detection in detections]


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Return `image`, uint8 (H, W, 3), scaled so that its longest side is at most `side` px."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    return cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def enlarge(detections: list[Detection], factor: int, width: int, height: int) -> list[Detection]:
    """Return detections in an image `factor` times smaller as those in the whole image of `width` x `height` px."""
    enlarged = []
    for detection in detections:
        x1, y1, x2, y2 = (factor * side for side in detection.box)
        enlarged.append(replace(detection, box=(min(x1, width), min(y1, height), min(x2, width), min(y2, height))))
    return enlarged
