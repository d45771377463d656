"""Find faces in a picture."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from facemask.crops import Box
from facemask.errors import InputError


@dataclass(frozen=True)
class Face:
    """A face found: `box` is x1, y1, x2, y2 in pixels, half-open, inside the image, never empty."""

    box: Box
    confidence: float  # 0..1, the detector's that this is a face


class FaceDetector:
    """The res10 300x300 SSD of OpenCV's samples, as `face_detector/convert_res10.py` writes it."""

    FILE_NAME = "res10_300x300_ssd.onnx"
    SIZE = 300  # px, side of the network's input
    MEAN_BGR = (104.0, 177.0, 123.0)  # of the pictures that it was trained on
    # What its Caffe DetectionOutput layer says (deploy.prototxt):
    MIN_CONFIDENCE = 0.01
    MAX_CANDIDATES = 400
    MAX_FACES = 200
    MAX_OVERLAP = 0.45  # intersection over union of two boxes from which the weaker is dropped

    def __init__(self, network) -> None:
        self._network = network

    @classmethod
    def load(cls, path: str | Path) -> "FaceDetector":
        """Load the ONNX file, or the one in a folder. Raises InputError if it is missing, broken or another network."""
        path = Path(path)
        if path.is_dir():
            path /= cls.FILE_NAME
        if not path.is_file():
            raise InputError(f"{path}: no such face detector; give -f the folder face_detector/ or its .onnx file")
        # OpenCV 5's classic engine loads this network faster than its new one, and runs it no slower.
        engine = (cv2.dnn.ENGINE_CLASSIC,) if hasattr(cv2.dnn, "ENGINE_CLASSIC") else ()
        try:
            detector = cls(cv2.dnn.readNetFromONNX(str(path), *engine))
            boxes, scores = detector._forward(np.zeros((cls.SIZE, cls.SIZE, 3), np.uint8))
        except (cv2.error, SystemError) as error:
            raise InputError(f"{path}: not a face detector that OpenCV can load; copy face_detector/ again") from error
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != (len(boxes),):
            raise InputError(f"{path}: not the res10 face detector (outputs {boxes.shape}, {scores.shape}); give -f its file")
        return detector

    def detect(self, image: np.ndarray, confidence: float = 0.5) -> list[Face]:
        """Find the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, surest first."""
        boxes, scores = self._forward(image)
        boxes, scores = select_boxes(
            boxes, scores, max(confidence, self.MIN_CONFIDENCE), self.MAX_OVERLAP, self.MAX_CANDIDATES, self.MAX_FACES
        )
        height, width = image.shape[:2]
        boxes, kept = clip_boxes(boxes * (width, height, width, height), width, height)
        return [Face(tuple(box), float(score)) for box, score in zip(boxes.tolist(), scores[kept], strict=True)]

    def _forward(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (n, 4), in fractions of the image and not clipped, and scores (n,)."""
        resized = cv2.resize(image, (self.SIZE, self.SIZE))
        self._network.setInput(cv2.dnn.blobFromImage(resized, 1.0, mean=self.MEAN_BGR))
        boxes, scores = self._network.forward(["boxes", "scores"])
        return boxes, scores.ravel()


def select_boxes(
    boxes: np.ndarray, scores: np.ndarray, min_score: float, max_overlap: float, max_candidates: int, max_boxes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drop weak boxes and those that overlap a stronger one (non-maximum suppression); strongest first.

    `boxes` is (n, 4) x1, y1, x2, y2 in any unit, `scores` (n,); returns both for the boxes kept. Boxes or scores that
    are not finite are dropped.
    """
    candidates = np.flatnonzero((scores >= min_score) & np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    if not len(candidates):
        return np.empty((0, 4), boxes.dtype), np.empty(0, scores.dtype)
    corner_and_size = np.concatenate([boxes[candidates, :2], boxes[candidates, 2:] - boxes[candidates, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(
        corner_and_size.astype(np.float64), scores[candidates].astype(np.float32), 0.0, max_overlap, top_k=max_candidates
    )
    kept = candidates[np.asarray(kept, int).ravel()[:max_boxes]]
    return boxes[kept], scores[kept]


def clip_boxes(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Round boxes (n, 4) to pixels and clip them to an image.

    Returns int boxes (k, 4), half-open, none empty, and the indices (k,) of those kept.
    """
    limits = np.array([width, height, width, height])
    clipped = np.clip(np.rint(boxes), 0, limits).astype(int)
    kept = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    return clipped[kept], kept
