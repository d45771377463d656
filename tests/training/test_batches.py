"""What a network learns from: augmented faces and mosaics in training, faces as detection cuts them out in validation."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("keras")

from face_detector.mosaics import MosaicDataset, Photo, Source  # noqa: E402
from facemask.boxes import crop_face  # noqa: E402
from facemask.models.model_info import ModelInfo  # noqa: E402
from facemask.training.batches import AugmentedBatches, FaceBatches  # noqa: E402
from facemask.training.crops import Crop, FacePatch  # noqa: E402

INFO = ModelInfo(("with_mask", "without_mask"), 96, 0.1)
BOX = (142, 60, 237, 178)


@pytest.fixture
def crop(astronaut) -> Crop:
    return Crop(FacePatch(astronaut, BOX), "without_mask", Path(), 0)


def test_classifier_never_learns_the_same_view_twice(crop):
    batches = AugmentedBatches([crop], INFO, 1, seed=0)
    views = [batches[epoch][0] for epoch in range(20)]
    assert len({view.tobytes() for view in views}) == 20


def test_classifier_is_validated_on_faces_as_detection_cuts_them_out(crop):
    ((faces, _),) = FaceBatches([crop], INFO, 1)
    np.testing.assert_array_equal(faces[0], crop_face(crop.patch.image, BOX, 96, 0.1))


def mosaics(image: np.ndarray, count: int) -> list[np.ndarray]:
    """Return `count` mosaics of 128 px that one photo, `image` with a face in its middle, fills."""
    encoded = cv2.imencode(".png", image)[1].tobytes()
    photo = Photo(encoded, image.shape[1::-1], boxes=np.array([(60, 60, 140, 140)], np.float32))
    source = Source([photo], weight=1.0, sides=(240, 280), grids=(1.0,))
    dataset = MosaicDataset([source], (), size=128, batch_size=1, seed=0)
    return [dataset.mosaic(source, np.random.default_rng(seed))[0] for seed in range(count)]


def test_half_of_the_face_detectors_mosaics_are_mirrored():
    """The photo gets bluer to the right and redder downwards, and so from red to blue anticlockwise however it is turned."""
    image = np.zeros((200, 200, 3), np.uint8)
    image[..., 0] = np.linspace(40, 200, 200)
    image[..., 2] = np.linspace(40, 200, 200)[:, None]
    mirrored = []
    for mosaic in mosaics(image, 200):
        (red_y, red_x), (blue_y, blue_x) = (
            [float(np.median(slope)) for slope in np.gradient(cv2.blur(mosaic[..., channel], (9, 9)).astype(float))]
            for channel in (0, 2)
        )
        mirrored.append(blue_x * red_y - blue_y * red_x < 0)
    assert 0.4 < np.mean(mirrored) < 0.6


def test_four_in_five_of_the_face_detectors_mosaics_are_relit():
    colours = np.array([np.median(mosaic, axis=(0, 1)) for mosaic in mosaics(np.full((200, 200, 3), 128, np.uint8), 200)])
    assert 0.72 < (np.abs(colours - 128) > 1).any(axis=1).mean() < 0.88


def test_some_of_the_face_detectors_mosaics_have_noise():
    """A fifth of the half that the camera's faults are put on, less what JPEG smooths."""
    images = mosaics(np.full((200, 200, 3), 128, np.uint8), 400)
    grain = np.array([np.median(np.abs(image - cv2.medianBlur(image, 5).astype(int))) for image in images])
    assert 0.04 < (grain > 0.5).mean() < 0.11
