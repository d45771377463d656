"""Training cuts the faces out of a photo so large that several in memory would be too many while no other is read."""

import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.training.crops import load_crops  # noqa: E402
from facemask.training.dataset import ClassPhoto  # noqa: E402
from facemask.types import Face  # noqa: E402
from tests.io.test_large_images import Concurrency, write_images  # noqa: E402


def test_training_cuts_the_face_out_of_a_large_photo_alone(tmp_path):
    images, seen = write_images(tmp_path), Concurrency()

    class Detector:
        def detect(self, image, *_):
            seen.enter(image.shape[1] > 96)
            seen.leave()
            return [Face((1, 2, 30, 40), 0.9)]

    crops = load_crops([ClassPhoto(path, "with_mask") for path in images], Detector(), 32, workers=3).crops
    assert [crop.path for crop in crops] == [path for path in images for _ in range(2)]  # the photo and its face
    assert seen.order == ["small", "large", "small"] and not seen.overlapped
