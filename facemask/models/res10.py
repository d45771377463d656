"""The res10 SSD, the face detector of OpenCV's samples and of the tutorials."""

import threading
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import MAX_FACES, clip_boxes, nms
from facemask.errors import InputError
from facemask.models.model_file import CHECKSUM_LENGTH, read_model
from facemask.models.onnx_session import read_with_opencv
from facemask.types import Face


class Res10Detector:
    """The res10 300x300 SSD of OpenCV's samples, as `docs/convert_res10.py` writes it."""

    FILE_NAME = "res10_300x300_ssd.onnx"
    CHECKSUM = b"ecaddf0395999194f92b70481bd2ae954f64ae5cb1b70862a890ce3d20f2f73c"  # with which that very file ends
    SIZE = 300  # px, side of the network's input
    MEAN_BGR = (104.0, 177.0, 123.0)  # of the pictures that it was trained on
    # What its Caffe DetectionOutput layer says (deploy.prototxt):
    MIN_CONFIDENCE = 0.01
    MAX_CANDIDATES = 400
    MOST_FACES = 200
    IOU_THRESHOLD = 0.45  # intersection over union of two boxes from which the weaker is dropped

    def __init__(self, network, max_faces: int = MAX_FACES) -> None:
        self._network, self.max_faces = network, min(max_faces, self.MOST_FACES)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path, max_faces: int = MAX_FACES) -> "Res10Detector":
        """Load the ONNX file. Raises InputError if it is another: OpenCV can crash on a malicious file."""
        if read_model(path)[-CHECKSUM_LENGTH:] != cls.CHECKSUM:
            raise InputError(f"{path}: not a face detector of this project; give -f the folder face_detector/")
        try:
            return cls(read_with_opencv(path), max_faces)
        except (cv2.error, SystemError) as error:
            raise InputError(f"{path}: OpenCV cannot load it; pip install --upgrade opencv-python") from error

    def detect(self, image: np.ndarray, confidence: float = 0.5) -> list[Face]:
        """Find the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, surest first."""
        boxes, scores = self._forward(image)
        boxes, scores = nms(
            boxes, scores, max(confidence, self.MIN_CONFIDENCE), self.IOU_THRESHOLD, self.MAX_CANDIDATES, self.max_faces
        )
        height, width = image.shape[:2]
        boxes, kept = clip_boxes(boxes * (width, height, width, height), width, height)
        return [Face(tuple(box), min(float(score), 1.0)) for box, score in zip(boxes.tolist(), scores[kept], strict=True)]

    def _forward(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (n, 4), in fractions of the image and not clipped, and scores (n,)."""
        resized = cv2.resize(image, (self.SIZE, self.SIZE))
        with self._lock:
            self._network.setInput(cv2.dnn.blobFromImage(resized, 1.0, mean=self.MEAN_BGR))
            boxes, scores = self._network.forward(["boxes", "scores"])
            return boxes.copy(), scores.ravel().copy()
