"""What a network learns from: augmented faces and scenes in training, faces as detection cuts them out in validation."""

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("keras")

from face_detector.data import Photo, Scenes  # noqa: E402
from facemask.boxes import crop_face  # noqa: E402
from facemask.models.model_info import ModelInfo  # noqa: E402
from facemask.training.batches import AugmentedBatches, FaceBatches  # noqa: E402
from facemask.training.dataset import FacePatch  # noqa: E402

INFO = ModelInfo(("with_mask", "without_mask"), 96, 0.1)
BOX = (142, 60, 237, 178)


def test_classifier_never_learns_the_same_view_twice(astronaut):
    batches = AugmentedBatches([FacePatch(astronaut, BOX)], np.array([1]), INFO, 1, faces=np.arange(1), seed=0)
    shown = [batches[epoch][0] for epoch in range(20)]
    assert len({view.tobytes() for view in shown}) == 20


def test_classifier_is_validated_on_faces_as_detection_cuts_them_out(astronaut):
    ((faces, _),) = FaceBatches([FacePatch(astronaut, BOX)], np.array([1]), INFO, 1)
    np.testing.assert_array_equal(faces[0], crop_face(astronaut, BOX, 96, 0.1))


def scenes(image: np.ndarray, count: int = 200) -> list[np.ndarray]:
    """Return `count` scenes of 128 px that one photo, `image` with a face in its middle, fills."""
    photo = Photo(image, np.array([(60, 60, 140, 140)], np.float32), np.empty((0, 4), np.float32), "a")
    dataset = Scenes([photo], size=128, batch_size=1, mosaic=0.0, longest_side=(200, 240), seed=0)
    return [dataset.scene(0, np.random.default_rng(seed))[0] for seed in range(count)]


def test_half_of_the_face_detectors_scenes_are_mirrored():
    """The photo gets brighter from left to right."""
    image = np.broadcast_to(np.arange(40, 240, dtype=np.uint8)[None, :, None], (200, 200, 3)).copy()
    to_the_right = [scene[:, 64:].mean() > scene[:, :64].mean() for scene in scenes(image)]
    assert 0.4 < np.mean(to_the_right) < 0.6


def test_four_in_five_of_the_face_detectors_scenes_are_relit():
    images = scenes(np.full((200, 200, 3), 128, np.uint8))
    colours = np.array([np.median(image, axis=(0, 1)) for image in images])
    assert 0.72 < (np.abs(colours - 128) > 1).any(axis=1).mean() < 0.88


def test_some_of_the_face_detectors_scenes_have_noise():
    """A fifth of the half that the camera's faults are put on, less what JPEG smooths."""
    images = scenes(np.full((200, 200, 3), 128, np.uint8), 400)
    grain = np.array([np.abs(image - cv2.medianBlur(image, 5).astype(int)).mean() for image in images])
    assert 0.05 < (grain > 0.8).mean() < 0.11
