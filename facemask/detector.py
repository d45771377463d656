"""Detect the faces in an image or an image file, and classify their masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from facemask.io.images import MAX_PIXELS, EncodedImage
from facemask.models.center_face import CenterFaceDetector
from facemask.models.face_detectors import FaceDetector
from facemask.models.mask_classifier import MaskClassifier
from facemask.types import Box, Detection, Face, FileResult

HIDE_CONFIDENCE = 0.1  # from which a face is hidden, though less confident ones than asked for are not reported
MAX_HIDE_SIZE = 2048  # px to which the longest side is scaled to find them: bounds the memory
Numbers = TypeVar("Numbers", float, np.ndarray)  # one, or one per face

MIN_REDUCED_SIDE = 1920  # px: the longest side of a JPEG decoded reduced is at least this
MIN_REDUCED_FACE = 32  # px high in an image decoded reduced: if a face is smaller, the whole image is decoded
# Part of a confidence that the classifier can take at most: about one face in ten, most of them a few pixels small, looks like
# background to it.
BACKGROUND_TRUST = 0.9


@dataclass(frozen=True)
class MaskDetector:
    """Both networks, loaded. Calls change nothing in it, so several threads may use it at once."""

    faces: FaceDetector
    classifier: MaskClassifier

    def detect(self, image: np.ndarray, confidence: float = 0.5, size: int | None = None) -> list[Detection]:
        """Detect and classify the faces in `image`, uint8 (H, W, 3) BGR; returns them most confident first.

        `confidence`, 0..1, is the minimum of a detection. `size` is the longest side in px to which the face detector scales
        the image (None: its default). Raises InputError if a network cannot process the image.
        """
        return self.classify(image, self.faces.detect(image, confidence, size), confidence)

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
        image = encoded.decode(scale)
        faces = self.faces.detect(image, confidence, size)
        if scale > 1 and any(face.box[3] - face.box[1] < MIN_REDUCED_FACE for face in faces):
            scale, image = 1, encoded.decode()
            faces = self.faces.detect(image, confidence, size)
        detections = self.classify(image, faces, confidence)
        if scale > 1:
            detections = enlarge(detections, scale, encoded.width, encoded.height)
            image = encoded.decode() if keep_image else image
        is_truncated = len(faces) == self.faces.max_faces
        hidden = self.find_hidden(image, detections, size) if hide and keep_image else []
        return FileResult(encoded.width, encoded.height, detections, is_truncated, image if keep_image else None, hidden)

    def find_hidden(self, image: np.ndarray, detections: Sequence[Detection], size: int | None = None) -> list[Box]:
        """Return the boxes to pixelate in `image`, uint8 (H, W, 3) BGR: of `detections`, and of less confident faces.

        The latter are those from HIDE_CONFIDENCE, in the image scaled to `size`; None is at least half its size, as small
        faces can be recognized too.
        """
        if size is None and isinstance(self.faces, CenterFaceDetector):  # the res10 SSD has one size
            size = max(self.faces.size, min(max(image.shape[:2]) // 2, MAX_HIDE_SIZE))
        faces = self.faces.detect(image, HIDE_CONFIDENCE, size)
        return [*(detection.box for detection in detections), *(face.box for face in faces)]

    def classify(self, image: np.ndarray, faces: Sequence[Face], confidence: float = 0.0) -> list[Detection]:
        """Classify the masks of `faces` in `image`, uint8 (H, W, 3) BGR; returns them most confident first.

        If the classifier has a background class, it verifies the confidence of each detection (`verified_confidence`), and
        detections below `confidence` are dropped.
        """
        if not faces:
            return []
        rows, face_probabilities = self.classifier.classify_and_verify(image, [face.box for face in faces])
        detections = []
        for face, row, face_probability in zip(faces, rows.tolist(), face_probabilities.tolist(), strict=True):
            verified = verified_confidence(face.confidence, face_probability)
            if verified < min(confidence, face.confidence):
                continue
            probabilities = dict(zip(self.classifier.info.labels, row, strict=True))
            label = max(probabilities, key=probabilities.__getitem__)
            detections.append(Detection(face.box, verified, label, probabilities[label], probabilities))
        return sorted(detections, key=lambda detection: -detection.confidence)


def verified_confidence(confidence: Numbers, face_probability: Numbers) -> Numbers:
    """Return the confidence, 0..1, of a face detector in a face whose crop the classifier calls a face with that probability.

    Both must agree, but BACKGROUND_TRUST bounds what the classifier can take: sets of small faces keep their ranking.
    """
    return confidence * (1 - BACKGROUND_TRUST * (1 - face_probability))


def enlarge(detections: list[Detection], factor: int, width: int, height: int) -> list[Detection]:
    """Return detections in an image `factor` times smaller as those in the whole image of `width` x `height` px."""
    enlarged = []
    for detection in detections:
        x1, y1, x2, y2 = (factor * side for side in detection.box)
        enlarged.append(replace(detection, box=(min(x1, width), min(y1, height), min(x2, width), min(y2, height))))
    return enlarged
