"""The images of several sources as one."""

import numpy as np
import pytest

from facemask.video import grid
from facemask.video.grid import Grid


def grey(level: int, height: int = 90, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


@pytest.fixture
def clock(monkeypatch):
    """The time of each look at the clock: a second apart."""
    now = iter(range(1, 1000))
    monkeypatch.setattr(grid.time, "monotonic", lambda: float(next(now)))


@pytest.fixture
def texts(monkeypatch):
    drawn = []
    monkeypatch.setattr(grid, "draw_status", lambda image, text: drawn.append(text))
    return drawn


def test_only_image_is_shown_as_it_is():
    images = []
    (tile,) = Grid(images.append, ["camera 0"], captions=False).tiles
    first, second = grey(10), grey(20)
    tile.show(first, "text")
    tile.show(second, "text")
    assert images[0] is first and images[1] is second


@pytest.mark.parametrize(("count", "columns", "rows"), [(2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2), (9, 3, 3)])
def test_places(clock, count, columns, rows):
    images = []
    tiles = Grid(images.append, [f"camera {number}" for number in range(count)], captions=False).tiles
    for number, tile in enumerate(tiles):
        tile.show(grey(20 * (number + 1)), "")
    height, width = 720 // rows, 1280 // columns
    assert images[-1].shape == (height * rows, width * columns, 3)
    centres = images[-1][height // 2 :: height, width // 2 :: width, 0].ravel().tolist()
    assert centres == [20 * (number + 1) for number in range(count)] + [0] * (columns * rows - count)
    assert [int(image[height // 2, width // 2, 0]) for image in images] == [20] * count  # those that come later are black


def test_aspect_ratio_is_kept(clock):
    images = []
    tiles = Grid(images.append, ["a", "b"], captions=False).tiles
    tiles[1].show(grey(200, 100, 100), "")
    assert np.flatnonzero(images[0][360, :, 0]).tolist() == list(range(640, 1280))
    assert np.flatnonzero(images[0][:, 960, 0]).tolist() == list(range(40, 680))


def test_captions_have_names_where_there_are_several(clock, texts):
    (tile,) = Grid(lambda image: None, ["a"], captions=True).tiles
    tile.show(grey(0), "9 frames/s")
    tile.show(grey(0), "")
    assert texts == ["9 frames/s"]
    first, second = Grid(lambda image: None, ["a", "b"], captions=True).tiles
    first.show(grey(0), "9 frames/s")
    second.show(grey(0), "")
    assert texts == ["9 frames/s", "a  9 frames/s", "b", "b"]  # a place that has not changed is not drawn again


def test_stall_is_shown_in_its_place(clock, texts):
    first, second = Grid(lambda image: None, ["a", "b"], captions=True).tiles
    first.show(grey(0), "9 frames/s")
    second.show(grey(0), "8 frames/s")
    del texts[:]
    first.show_stall(1.9)
    first.show_stall(2.0)
    first.show(grey(0), "7 frames/s")
    assert texts == ["a  9 frames/s", "a  no image for 2 s", "a  7 frames/s"]


def test_no_more_than_ten_grids_a_second(monkeypatch):
    now, images = 0.0, []
    monkeypatch.setattr(grid.time, "monotonic", lambda: now)
    tiles = Grid(images.append, ["a", "b"], captions=False).tiles
    for step in range(100):
        now = step / 64
        tiles[step % 2].show(grey(step), "")
    assert len(images) == 15  # in 1.5 s: a grid every seventh of these steps
    assert int(images[-1][360, 320, 0]) == 98  # the newest of both


def test_copies_are_not_changed_later(clock):
    images = []
    tiles = Grid(images.append, ["a", "b"], captions=True).tiles
    tiles[0].show(grey(50), "text")
    before = images[0].copy()
    tiles[0].show(grey(90), "text")
    assert (images[0] == before).all()
