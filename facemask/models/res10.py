"""The res10 SSD, the face detector of OpenCV's samples and of the tutorials."""

import threading
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import MAX_FACES, clip_boxes, nms
from facemask.errors import InputError
from facemask.models.model_file import CHECKSUM_LENGTH, ModelFile, as_model_file
from facemask.models.onnx_session import read_with_opencv
from facemask.types import Face


class Res10Detector:
    """The res10 300x300 SSD of OpenCV's samples, as `docs/convert_res10.py` writes it."""

    FILE_NAME = "res10_300x300_ssd.onnx"
    CHECKSUM = b"ecaddf0395999194f92b70481bd2ae954f64ae5cb1b70862a890ce3d20f2f73c"  # with which this very file ends
    WRONG_SIZE = "the res10 SSD runs on 300x300 px and no other size; omit --detector-size"
    MEAN_BGR = (104.0, 177.0, 123.0)  # of the images that it was trained on
    # From its Caffe DetectionOutput layer (deploy.prototxt):
    MIN_CONFIDENCE = 0.01
    MAX_CANDIDATES = 400
    MAX_OUTPUT_FACES = 200
    IOU_THRESHOLD = 0.45  # of two boxes, from which the weaker one is dropped

    size = 300  # px, side of the network's input

    def __init__(self, network, max_faces: int = MAX_FACES, name: str = FILE_NAME) -> None:
        """`network` is a cv2.dnn.Net with the outputs "boxes" (n, 4) and "scores" (n, 1)."""
        self._network, self.max_faces, self.name = network, min(max_faces, self.MAX_OUTPUT_FACES), name
        self._lock = threading.Lock()

    @classmethod
    def load(cls, model: ModelFile | str | Path, max_faces: int = MAX_FACES) -> "Res10Detector":
        """Load the ONNX file. Raises InputError if it is another file: OpenCV can crash on a malicious one."""
        model = as_model_file(model)
        path = model.path
        if model.data[-CHECKSUM_LENGTH:] != cls.CHECKSUM:
            raise InputError(f"{path}: not a face detector of this project; give -f the folder face_detector/")
        try:
            return cls(read_with_opencv(path), max_faces, path.name)
        except (cv2.error, SystemError) as error:
            raise InputError(f"{path}: OpenCV cannot load it; pip install --upgrade opencv-python") from error

    def detect(self, image: np.ndarray, confidence: float = 0.5, size: int | None = None) -> list[Face]:
        """Detect the faces in `image`, uint8 (H, W, 3) BGR, of at least that confidence, 0..1, most confident first.

        Raises InputError if `size` is not None or 300: the network has one input size.
        """
        if size not in (None, self.size):
            raise InputError(f"{self.name}: {self.WRONG_SIZE}")
        boxes, scores = self.infer(self.preprocess(image))
        return self.postprocess(boxes, scores, image.shape[1], image.shape[0], confidence)

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Return an image, uint8 (H, W, 3) BGR, as float32 (1, 3, 300, 300) BGR without the mean."""
        return cv2.dnn.blobFromImage(cv2.resize(image, (self.size, self.size)), 1.0, mean=self.MEAN_BGR)

    def infer(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the network; returns boxes (n, 4), in fractions of the image and not clipped, and scores (n,)."""
        with self._lock:  # between setting the input and copying the outputs no other thread may
            self._network.setInput(inputs)
            boxes, scores = self._network.forward(["boxes", "scores"])
            return boxes.copy(), scores.ravel().copy()

    def postprocess(self, boxes: np.ndarray, scores: np.ndarray, width: int, height: int, confidence: float) -> list[Face]:
        """Return the faces among the network's outputs for an image of `width` x `height` px."""
        min_score = max(confidence, self.MIN_CONFIDENCE)
        boxes, scores = nms(boxes, scores, min_score, self.IOU_THRESHOLD, self.MAX_CANDIDATES, self.max_faces)
        boxes, kept = clip_boxes(boxes * (width, height, width, height), width, height)
        return [Face(tuple(box), min(float(score), 1.0)) for box, score in zip(boxes.tolist(), scores[kept], strict=True)]
