"""Show the images of several sources as one, side by side."""

import math
import time
from collections.abc import Callable

import numpy as np

from facemask.drawing import draw_status
from facemask.video.writer import fit_into

STALL = 2.0  # s without an image, after which the place of a source shows it
GRID_WIDTH, GRID_HEIGHT = 1280, 720  # px of the images of several sources together
GRID_INTERVAL = 0.1  # s from one grid of several to the next, at least


class Grid:
    """Places the images of sources side by side; the image of an only source is shown as it is."""

    def __init__(self, show: Callable[[np.ndarray], None], names: list[str], captions: bool) -> None:
        """`show` receives each image, uint8 (H, W, 3) BGR; `names` are those of the sources, in their order.

        With `captions` each image has a line of text, which begins with the name if there are several.
        """
        self._show, self._captions = show, captions
        self.tiles = [Tile(self, name if len(names) > 1 else "") for name in names]
        self._columns = math.ceil(math.sqrt(len(names)))
        self._size = GRID_WIDTH // self._columns, GRID_HEIGHT // math.ceil(len(names) / self._columns)  # px of a tile
        self._interval = GRID_INTERVAL if len(names) > 1 else 0.0
        self._next = 0.0  # time.monotonic()

    def update(self) -> None:
        """Show the tiles as they are now, if it is time."""
        now = time.monotonic()
        if now >= self._next and any(tile.image is not None for tile in self.tiles):
            self._next = now + self._interval
            self._show(self._compose())

    def _compose(self) -> np.ndarray:
        only = self.tiles[0].image
        if len(self.tiles) == 1 and only is not None:
            return self._with_caption(only, self.tiles[0])
        width, height = self._size
        canvas = np.zeros((height * math.ceil(len(self.tiles) / self._columns), width * self._columns, 3), np.uint8)
        for index, tile in enumerate(self.tiles):
            if tile.small is None:
                image = np.zeros((height, width, 3), np.uint8) if tile.image is None else fit_into(tile.image, width, height)
                tile.small = self._with_caption(image, tile)
            row, column = divmod(index, self._columns)
            canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile.small
        return canvas

    def _with_caption(self, image: np.ndarray, tile: "Tile") -> np.ndarray:
        text = "  ".join(filter(None, (tile.name, tile.text)))
        if self._captions and text:
            image = image.copy()
            draw_status(image, text)
        return image


class Tile:
    """The place of one source in a grid."""

    def __init__(self, grid: Grid, name: str) -> None:
        self._grid, self.name = grid, name
        self.image: np.ndarray | None = None
        self.text = ""
        self.small: np.ndarray | None = None  # as it is in the grid; None if it has changed
        self._image_text = ""

    def show(self, image: np.ndarray, text: str) -> None:
        """Show `image`, uint8 (H, W, 3) BGR, not changed later, with a line of text."""
        self.image, self._image_text = image, text
        self._change(text)

    def show_stall(self, seconds: float) -> None:
        """Show over the last image for how many seconds there has been no new one."""
        self._change(f"no image for {seconds:.0f} s" if seconds >= STALL else self._image_text)

    def _change(self, text: str) -> None:
        self.text, self.small = text, None
        self._grid.update()
