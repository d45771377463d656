"""A frame as people see it."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from facemask.drawing import draw_tracked, draw_zone, pixelate_faces
from facemask.types import Box, FrameResult

Outline = tuple[str, np.ndarray]  # a zone's name, and its corners (n, 2) in px


class FrameImages:
    """A frame as outputs show it: what is drawn, is drawn when an output first asks for it, once for all of them.

    No image is to be changed; all are uint8 (H, W, 3) BGR.
    """

    def __init__(self, image: np.ndarray, result: FrameResult, hidden: Sequence[Box] = (), zones: Sequence[Outline] = ()) -> None:
        """The faces in `hidden` are pixelated in everything that is shown. `zones` are drawn thinly."""
        self._image, self.result, self._hidden, self.zones = image, result, hidden, zones

    @cached_property
    def plain(self) -> np.ndarray:
        """The frame without boxes, labels and zones."""
        return pixelate_faces(self._image, self._hidden) if self._hidden else self._image

    @cached_property
    def annotated(self) -> np.ndarray:
        """The frame with a box and a label on each face."""
        return self._with_zones(draw_tracked(self.plain, self.result.faces))

    def marked(self, track: int) -> np.ndarray:
        """Return the frame with a strong box on the face of that track, and thin ones on the others."""
        return self._with_zones(draw_tracked(self.plain, self.result.faces, track))

    def _with_zones(self, image: np.ndarray) -> np.ndarray:
        for name, polygon in self.zones:
            draw_zone(image, polygon, name)
        return image
