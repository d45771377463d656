import numpy as np

from facemask.detector import MaskDetector, enlarge
from facemask.models.mask_classifier import MaskClassifier
from facemask.models.model_info import ModelInfo
from facemask.types import Detection, Face

INFO = ModelInfo(("with_mask", "without_mask"), 32, 0.0)


class FakeFaces:
    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def detect(self, image, confidence):
        return [face for face in self.faces if face.confidence >= confidence]


def run_bright_is_masked(images):
    masked = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([masked, 1 - masked], axis=1)


def test_detect_labels_each_face():
    image = np.zeros((100, 100, 3), np.uint8)
    image[:50] = 255
    faces = FakeFaces(Face((0, 0, 40, 40), 0.9), Face((0, 60, 40, 100), 0.7), Face((0, 0, 9, 9), 0.2))
    detections = MaskDetector(faces, MaskClassifier(INFO, run_bright_is_masked, "fake")).detect(image)
    assert detections == [
        Detection((0, 0, 40, 40), 0.9, "with_mask", 1.0, {"with_mask": 1.0, "without_mask": 0.0}),
        Detection((0, 60, 40, 100), 0.7, "without_mask", 1.0, {"with_mask": 0.0, "without_mask": 1.0}),
    ]


def test_detect_without_faces_skips_the_classifier():
    def run(images):
        raise AssertionError("the classifier was called")

    assert MaskDetector(FakeFaces(), MaskClassifier(INFO, run, "fake")).detect(np.zeros((9, 9, 3), np.uint8)) == []


def test_enlarge():
    small = Detection((1, 2, 50, 34), 0.9, "with_mask", 0.8, {"with_mask": 0.8, "without_mask": 0.2})
    assert enlarge([small], 2, 99, 67) == [Detection((2, 4, 99, 67), 0.9, "with_mask", 0.8, small.probabilities)]
    assert enlarge([], 2, 99, 67) == []
