"""Training finds the face in a photo so large that several in memory would be too many while no other is worked on."""

import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.training.dataset import Sample, add_single_faces  # noqa: E402
from facemask.types import Face  # noqa: E402
from tests.io.test_large_images import Concurrency, write_images  # noqa: E402


def test_training_finds_the_face_of_a_large_photo_alone(tmp_path):
    images, seen = write_images(tmp_path), Concurrency()

    class Detector:
        def detect(self, image, confidence=0.5):
            seen.enter(image.shape[1] > 96)
            seen.leave()
            return [Face((1, 2, 30, 40), 0.9)]

    samples = [Sample(path, "with_mask", None) for path in images]
    found = add_single_faces(samples, Detector(), workers=3)[3:]
    assert found == [Sample(path, "with_mask", (1, 2, 30, 40)) for path in images]
    assert seen.order == ["small", "large", "small"] and not seen.overlapped
