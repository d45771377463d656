"""The confidence of a face is a probability: the network's score, calibrated."""

import numpy as np
import pytest

from facemask.models.center_face import CenterFaceDetector, PlattScaling

IMAGE = np.zeros((64, 64, 3), np.uint8)
UNCALIBRATED = PlattScaling(1.0, 0.0)


def run(images: np.ndarray) -> np.ndarray:
    """Give a network's output, (n, 5, H/4, W/4), with one face of 4 x 4 cells in its middle."""
    n, _, height, width = images.shape
    cells = np.zeros((n, 5, height // 4, width // 4), np.float32)
    cells[:, 0] = -60
    cells[:, :, height // 8, width // 8] = -1.5, 0, 0, np.log(4), np.log(4)
    return cells


def confidence(calibration: PlattScaling) -> float:
    (face,) = CenterFaceDetector(run, calibration, size=64).detect(IMAGE, 0.01)
    return face.confidence


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (2.0, 0.0), (0.5, -1.0), (1.5, 1.0)])
def test_confidence_is_the_calibrated_score(slope, shift):
    """sigmoid(slope x logit + shift), Platt scaling."""
    score = confidence(UNCALIBRATED)
    assert 0.1 < score < 0.9
    logit = np.log(score / (1 - score))
    assert confidence(PlattScaling(slope, shift)) == pytest.approx(1 / (1 + np.exp(-slope * logit - shift)))


def test_the_least_confidence_is_a_calibrated_one():
    """A face whose score is above it and whose calibrated confidence is below does not count."""
    detector, score = CenterFaceDetector(run, PlattScaling(1.0, -1.0), size=64), confidence(UNCALIBRATED)
    assert detector.detect(IMAGE, score) == []
    assert len(detector.detect(IMAGE, confidence(PlattScaling(1.0, -1.0)) - 0.01)) == 1
