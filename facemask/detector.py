"""From a picture to the faces in it and their masks."""

from dataclasses import dataclass, replace

import numpy as np

from facemask.models.face_detectors import FaceDetector
from facemask.models.mask_classifier import MaskClassifier
from facemask.types import Detection


def enlarge(detections: list[Detection], factor: int, width: int, height: int) -> list[Detection]:
    """Return what was found in a picture `factor` times smaller as in the one of `width` x `height` px."""
    limits = width, height, width, height
    return [
        replace(detection, box=tuple(min(side * factor, limit) for side, limit in zip(detection.box, limits, strict=True)))
        for detection in detections
    ]


@dataclass(frozen=True)
class MaskDetector:
    """Both networks, loaded; `detect` may be called from several threads at once."""

    faces: FaceDetector
    classifier: MaskClassifier

    def detect(self, image: np.ndarray, confidence: float = 0.5) -> list[Detection]:
        """Find and classify the faces in `image`, uint8 (H, W, 3) BGR, surest face first; empty where there is none."""
        faces = self.faces.detect(image, confidence)
        if not faces:
            return []
        classes = self.classifier.info.classes
        detections = []
        for face, row in zip(faces, self.classifier.classify(image, [face.box for face in faces]), strict=True):
            probabilities = dict(zip(classes, row.tolist(), strict=True))
            label = max(probabilities, key=probabilities.__getitem__)
            detections.append(Detection(face.box, face.confidence, label, probabilities[label], probabilities))
        return detections
