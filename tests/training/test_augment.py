"""The augmentation of training faces: each change happens, as often and as strongly as the recipe says.

Every test draws hundreds of views with fixed seeds and measures them.
"""

from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training  # facemask.training needs scikit-learn
pytest.importorskip("sklearn")

from facemask.training.augment import augment, degrade, relight  # noqa: E402
from facemask.training.crops import FacePatch  # noqa: E402

SIZE = 96  # px, side of a view
BOX = (60, 60, 180, 180)  # of the face in a patch of 240 x 240 px
DISCS = ((90, 85, 20), (155, 110, 14), (105, 155, 9))  # centre x, y and radius in px: by their areas they tell a view's pose


def views(image: np.ndarray, count: int, margin: float = 0.0, box: tuple = BOX) -> Iterator[np.ndarray]:
    """Yield `count` augmented views of the face in `image`."""
    for seed in range(count):
        yield augment(FacePatch(image, box), SIZE, margin, np.random.default_rng(seed))


def spread(values: np.ndarray) -> float:
    """Return the standard deviation as half the width of the middle 68 %, which outliers do not change."""
    low, high = np.percentile(values, (16, 84))
    return float(high - low) / 2


# Pose: rotation, mirroring, jitter of the box


def pose(view: np.ndarray) -> tuple[bool, float, float, float, float] | None:
    """Return what a view of the discs shows: mirrored, angle in degrees, log of the scale, shift x and y in face sides.

    None where not all three discs can be distinguished, as under a blot.
    """
    grey = view.mean(axis=2)
    count, _, stats, centres = cv2.connectedComponentsWithStats((grey > (grey.min() + grey.max()) / 2).astype(np.uint8))
    if count != 1 + len(DISCS):
        return None
    by_area = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA])
    # Of the affine map from patch to view, in homogeneous coordinates.
    affine = np.linalg.solve([(x, y, 1) for x, y, _ in DISCS], centres[by_area])
    linear, offset = affine[:2].T, affine[2]
    middle = np.linalg.solve(linear, (SIZE - 1) / 2 - offset)  # in the patch, of the view's centre
    mirrored = bool(np.linalg.det(linear) < 0)
    if mirrored:
        linear = np.diag([-1, 1]) @ linear
    angle = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    scale = np.log(np.sqrt(np.linalg.det(linear)) * 120 / SIZE)
    return mirrored, angle, scale, *(middle - 119.5) / 120


def poses_of(count: int, margin: float) -> np.ndarray:
    """Return the poses (n, 5) of the views of the discs in which all three can be distinguished: most of `count`."""
    image = np.full((240, 240, 3), 40, np.uint8)
    for x, y, radius in DISCS:
        cv2.circle(image, (x, y), radius, (220, 220, 220), cv2.FILLED, cv2.LINE_AA)
    found = np.array([one for one in map(pose, views(image, count, margin)) if one], float)
    assert len(found) > count / 2
    return found


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    """Return poses (n, 5) of views which the square box of the face fills where nothing is changed."""
    return poses_of(600, 0.0)


def test_views_are_rotated_by_about_fifteen_degrees(poses):
    """Without the quarter turns, which `test_turns.py` counts."""
    angles = (poses[:, 1] + 45) % 90 - 45
    assert abs(np.median(angles)) < 3
    assert 12 < spread(angles) < 18


def test_half_of_the_views_are_mirrored(poses):
    assert 0.42 < poses[:, 0].mean() < 0.58


def test_box_is_jittered_in_scale_and_place(poses):
    """By 10 % in scale, 5 % across and down; a box whose aspect is off is cut out as a square, 5 % larger on average."""
    scales, across, down = poses[:, 2], poses[:, 3], poses[:, 4]
    assert 0.08 < spread(scales) < 0.13
    assert -0.08 < np.median(scales) < -0.02
    assert 0.04 < spread(across) < 0.065 and 0.04 < spread(down) < 0.065
    assert abs(np.median(across)) < 0.01 and abs(np.median(down)) < 0.01


def test_margin_is_kept_around_the_face(poses):
    """Of a fifth of the face on each side: the view shows 1.4 times its side."""
    assert np.median(poses_of(300, 0.2)[:, 2]) == pytest.approx(np.median(poses[:, 2]) - np.log(1.4), abs=0.03)


def test_beyond_the_patch_its_border_goes_on():
    """Rotated views of a bright patch's corner have no dark corners; a few have a dark blot."""
    image = np.full((240, 240, 3), 200, np.uint8)
    dark = [(view.mean(axis=2) < 0.6 * np.median(view)).mean() for view in views(image, 200, 0.0, (0, 0, 120, 120))]
    assert np.mean(np.array(dark) > 0.002) < 0.2


# Light


@pytest.fixture(scope="module")
def lights() -> np.ndarray:
    """Return five greys, 0 to 255, and a skin colour in a thousand lights: (1000, 6, 3) RGB."""
    colours = np.array([[(grey,) * 3 for grey in (0, 64, 128, 191, 255)] + [(160, 110, 90)]], np.uint8)
    return np.array([relight(colours, np.random.default_rng(seed))[0] for seed in range(1000)], float)


def test_light_changes_exposure(lights):
    """A gamma, which moves the middle against both sides."""
    greys = lights[:, :5].mean(axis=2)
    assert spread(greys[:, 1] + greys[:, 3] - 2 * greys[:, 2]) > 5


def test_light_changes_contrast(lights):
    greys = lights[:, :5].mean(axis=2)
    assert 0.14 < spread(np.log(np.maximum(greys[:, 3] - greys[:, 1], 1))) < 0.21


def test_light_changes_brightness(lights):
    """Black and white move together, where neither is cut off."""
    black, white = lights[:, 0].mean(axis=1), lights[:, 4].mean(axis=1)
    whole = (black > 0) & (white < 255)
    assert whole.sum() > 300
    assert 6 < spread((black + white)[whole] / 2) < 13


def test_light_changes_colour_temperature(lights):
    assert 0.06 < spread(np.log(lights[:, 2, 0] / lights[:, 2, 2])) < 0.1


def test_light_changes_saturation(lights):
    red_against_blue = lights[:, 5, 0] - lights[:, 5, 2]
    contrast = lights[:, 3].mean(axis=1) - lights[:, 1].mean(axis=1)
    assert 0.25 < spread(np.log(np.maximum(red_against_blue, 1) / np.maximum(contrast, 1))) < 0.4


def test_one_in_twenty_views_is_grey(lights):
    assert 0.03 < (np.ptp(lights, axis=2) == 0).all(axis=1).mean() < 0.075


def test_views_are_relit():
    """Views of a grey patch are of many greys."""
    means = np.array([view.mean() for view in views(np.full((240, 240, 3), 128, np.uint8), 100)])
    assert spread(means) > 12


# Something in front of the face


def test_some_views_have_a_blot_too_small_to_hide_a_mask():
    """One view in seven, less those where the blot has nearly the patch's colour or lies mostly outside."""
    parts = []
    for view in views(np.full((240, 240, 3), 128, np.uint8), 400):
        smooth = cv2.medianBlur(view, 5).astype(int)  # without noise
        parts.append((np.abs(smooth - np.median(smooth, axis=(0, 1))).max(axis=2) > 30).mean())
    parts = np.array(parts)
    assert 0.09 < (parts > 0.002).mean() < 0.18
    assert 0.05 < parts.max() < 0.18


# Camera: resolution, blur, noise, JPEG


def edge_width(view: np.ndarray) -> float:
    """Return over how many px the one edge in a view goes from dark to bright."""
    grey = view.mean(axis=2)
    slope = np.hypot(*(cv2.Sobel(grey, cv2.CV_64F, *direction) / 8 for direction in ((1, 0), (0, 1))))
    low, high = np.percentile(grey, (5, 95))
    return float((high - low) / np.percentile(slope, 99.5))


def test_half_of_the_views_are_of_lower_resolution():
    """Down to 12 px, where an edge is 8 px wide in a view of 96."""
    image = np.full((240, 240, 3), 40, np.uint8)
    image[:, 120:] = 215
    widths = np.array([edge_width(view) for view in views(image, 400)])
    assert np.percentile(widths, 25) < 2.3  # as sharp as the patch
    assert 0.15 < (widths > 5).mean() < 0.3
    assert 8 < np.percentile(widths, 95) < 16


def test_some_views_have_noise():
    grain = [
        np.abs(view - cv2.medianBlur(view, 5).astype(int)).mean() for view in views(np.full((240, 240, 3), 128, np.uint8), 400)
    ]
    assert 0.1 < np.mean(np.array(grain) > 0.8) < 0.25


def with_edge(column: int) -> np.ndarray:
    """Return a dark image that is bright from that column on."""
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    image[:, column:] = 200
    return image


@cache
def degraded(column: int) -> np.ndarray:
    """Return the image with an edge at that column, degraded 600 times, grey: (600, 96, 96)."""
    image = with_edge(column)
    return np.array([degrade(image, np.random.default_rng(seed)).mean(axis=2) for seed in range(600)])


def test_one_in_five_images_is_blurred():
    """The edge lies between two blocks of JPEG, which leaves it as it is: what comes across it is blur."""
    across = degraded(48).mean(axis=1)
    strength = np.abs(across[:, 47] - across[:, 40])
    assert 0.13 < (strength > 4).mean() < 0.24
    assert strength.max() > 30


def test_one_in_five_images_has_noise():
    """Less what JPEG smooths."""
    noise = degraded(48)[:, :, :40].std(axis=(1, 2))
    assert 0.1 < (noise > 1).mean() < 0.22
    assert noise.max() > 3


def test_half_of_the_images_are_compressed():
    """An edge within a block of JPEG rings to the block's side, which blur does not reach."""
    across = degraded(44).mean(axis=1)
    ringing = np.abs(across[:, 40] - across[:, 32:39].mean(axis=1))
    assert 0.27 < (ringing > 0.5).mean() < 0.5
    assert ringing.max() > 1.5


def test_a_third_of_the_images_is_left_as_it_is():
    same = (degraded(44) == with_edge(44).mean(axis=2)).all(axis=(1, 2))
    assert 0.28 < same.mean() < 0.45


# Repetition


def test_view_follows_from_the_seed_alone(astronaut):
    """Whatever the global random numbers are; the patch stays as it was."""
    patch = FacePatch(astronaut.copy(), (142, 60, 237, 178))
    first = [augment(patch, SIZE, 0.1, np.random.default_rng(seed)) for seed in range(30)]
    np.random.seed(1)
    cv2.setRNGSeed(1)
    again = [augment(patch, SIZE, 0.1, np.random.default_rng(seed)) for seed in range(30)]
    np.testing.assert_array_equal(first, again)
    assert len({view.tobytes() for view in first}) == 30
    np.testing.assert_array_equal(patch.image, astronaut)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((0, 0, 60, 80), id="upper left corner"),
        pytest.param((340, 350, 380, 400), id="lower right corner"),
        pytest.param((100, 100, 104, 103), id="4 px"),
        pytest.param((100, 100, 101, 101), id="1 px"),
        pytest.param((0, 0, 380, 400), id="all of the patch"),
        pytest.param((10, 100, 370, 110), id="wide"),
    ],
)
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_view_has_its_size_wherever_the_face_is(astronaut, box, margin):
    for view in views(astronaut, 20, margin, box):
        assert view.shape == (SIZE, SIZE, 3) and view.dtype == np.uint8
