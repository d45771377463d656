"""Quarter turns in augmentation: as often as the recipe says, and the box of the face turns with the image."""

import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.training.augment import augment, turn  # noqa: E402
from facemask.training.crops import FacePatch  # noqa: E402


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turn_turns_the_box_with_the_image(quarters):
    image = np.zeros((50, 80, 3), np.uint8)
    image[10:30, 40:75] = np.random.default_rng(0).integers(1, 256, (20, 35, 3))
    turned = turn(FacePatch(image, (40, 10, 75, 30)), quarters)
    x1, y1, x2, y2 = turned.box
    np.testing.assert_array_equal(turned.image[y1:y2, x1:x2], np.rot90(image[10:30, 40:75], quarters))
    np.testing.assert_array_equal(turned.image, np.rot90(image, quarters))


def test_a_quarter_of_the_crops_is_turned_each_way_alike():
    """The patch gets brighter downwards; a mirrored crop of it does too."""
    image = np.broadcast_to(np.linspace(60, 190, 240).astype(np.uint8)[:, None, None], (240, 240, 3)).copy()
    directions = []
    for seed in range(1200):
        view = augment(FacePatch(image, (60, 60, 180, 180)), 48, 0.0, np.random.default_rng(seed)).mean(axis=2)
        right, down = view[:, 24:].mean() - view[:, :24].mean(), view[24:].mean() - view[:24].mean()
        directions.append(round(np.degrees(np.arctan2(right, down)) / 90) % 4)
    upright, left, upside_down, right = np.bincount(directions, minlength=4) / len(directions)
    assert 0.71 < upright < 0.79
    assert all(0.05 < share < 0.12 for share in (left, upside_down, right))
