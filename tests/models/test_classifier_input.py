"""What the mask classifier's network receives: faces in RGB, cut out with the margin that it was trained with."""

import numpy as np
import pytest

from facemask.boxes import crop_face
from facemask.models.mask_classifier import MaskClassifier
from facemask.models.model_info import ModelInfo

BOXES = [(142, 60, 237, 178), (10, 20, 60, 50)]


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_network_receives_rgb_faces_with_the_models_margin(astronaut, margin):
    received = []

    def run(images: np.ndarray) -> np.ndarray:
        received.append(images)
        return np.full((len(images), 2), 0.5, np.float32)

    classifier = MaskClassifier(ModelInfo(("with_mask", "without_mask"), 64, margin), run, "none")
    classifier.classify(astronaut, BOXES)
    ((first, second),) = received
    for image, box in ((first, BOXES[0]), (second, BOXES[1])):
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image.transpose(1, 2, 0), crop_face(astronaut[..., ::-1], box, 64, margin))
