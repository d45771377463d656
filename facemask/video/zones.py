"""Zones of an image: only people whose faces are in one make events and counts."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import cv2
import numpy as np

from facemask.errors import InputError
from facemask.types import FrameResult
from facemask.video.frame_images import Outline

MIN_POINTS = 3

logger = logging.getLogger(__name__)

Point = tuple[float, float]


@dataclass(frozen=True)
class Zone:
    """A polygon in images, whose points are x, y: fractions of width and height if none exceeds 1, else px."""

    name: str  # empty if it has none
    points: tuple[Point, ...]
    source: int | None = None  # number of the source, from 1, for which it is; None for all

    @classmethod
    def parse(cls, text: str) -> "Zone":
        """Parse [NAME][@SOURCE]:x1,y1,x2,y2,… Raises ValueError, with what is wrong, if that is not a polygon."""
        head, _, numbers = text.rpartition(":")
        name, at, source = head.rpartition("@") if re.search(r"@\d+$", head) else (head, "", "")
        if at and int(source) == 0:
            raise ValueError("must number sources from 1")
        try:
            values = [float(number) for number in numbers.split(",")]
        except ValueError:
            raise ValueError("must be [NAME[@SOURCE]:]x1,y1,x2,y2,… in numbers") from None
        if len(values) % 2 or len(values) < 2 * MIN_POINTS:
            raise ValueError(f"must have x and y of {MIN_POINTS} points or more, has {len(values)} numbers")
        if not all(0 <= value < math.inf for value in values):
            raise ValueError("must have fractions from 0 to 1, or pixels from 0")
        points = tuple(zip(values[::2], values[1::2], strict=True))
        if _crosses_itself(points):
            raise ValueError("must not cross itself: give its points in order, around it")
        if not cv2.contourArea(np.array(points, np.float32)) > 0:
            raise ValueError("must have an area: its points lie on a line")
        return cls(name.strip(), points, int(source) if at else None)

    def polygon(self, width: int, height: int) -> np.ndarray:
        """Return its points in an image of `width` x `height` px as float32 (n, 2) px."""
        points = np.array(self.points, np.float32)
        return points * np.array((width, height), np.float32) if points.max() <= 1 else points


def _crosses_itself(points: Sequence[Point]) -> bool:
    sides = list(pairwise([*points, points[0]]))
    return any(_cross(*one, *other) for one, other in combinations(sides, 2))


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether the inner points of the line from a to b and of the one from c to d cross."""
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


def _turn(a: Point, b: Point, c: Point) -> float:
    """Return a number whose sign is the side of the line from a to b on which c is."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def zones_by_source(zones: Sequence[Zone], count: int) -> list[list[Zone]]:
    """Return the zones of each of `count` sources. Raises InputError if a zone is for none of them."""
    for zone in zones:
        if zone.source is not None and zone.source > count:
            raise InputError(
                f"--zone {zone.name}@{zone.source}: is for source {zone.source}, and -i names {count}; number them from 1"
            )
    return [[zone for zone in zones if zone.source in (None, number)] for number in range(1, count + 1)]


class ZoneFilter:
    """Finds for each face and track of a source the zone in which it is."""

    def __init__(self, zones: Sequence[Zone], source: str) -> None:
        """Zones without a name get a number. Messages call the source `source`."""
        self._names = [zone.name or f"zone {number}" for number, zone in enumerate(zones, 1)]
        self._zones, self._source = zones, source
        self._size: tuple[int, int] | None = None  # width and height of the images, px
        self._polygons: list[np.ndarray] = []  # in images of that size
        self._last: dict[int, str] = {}  # by track ID, the last zone in which a track was

    def apply(self, result: FrameResult, image: np.ndarray) -> FrameResult:
        """Return the result of a frame with the zone of each face, track and ended track; as it is if there are no zones.

        A face is in the first zone that has the centre of its box. An ended track has the last zone in which it was.
        """
        if not self._zones:
            return result
        self._fit(image.shape[1], image.shape[0])
        faces = [replace(face, zone=self._find(face.box)) for face in result.faces]
        now = {face.track: face.zone for face in faces}
        self._last.update((track, zone) for track, zone in now.items() if track is not None and zone is not None)
        tracks = [replace(track, zone=now[track.id]) for track in result.tracks]
        ended = [replace(track, zone=self._last.pop(track.id, None)) for track in result.ended]
        return replace(result, faces=faces, tracks=tracks, ended=ended)

    @property
    def outlines(self) -> list[Outline]:
        """Return the zones as they are in the last frame."""
        return list(zip(self._names, self._polygons, strict=False))  # before the first frame there are none

    def _find(self, box: Sequence[int]) -> str | None:
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        names = zip(self._names, self._polygons, strict=True)
        return next((name for name, polygon in names if cv2.pointPolygonTest(polygon, centre, False) >= 0), None)

    def _fit(self, width: int, height: int) -> None:
        if (width, height) == self._size:
            return
        self._size = width, height
        self._polygons = [zone.polygon(width, height) for zone in self._zones]
        for name, polygon in zip(self._names, self._polygons, strict=True):
            if (polygon > (width, height)).any():
                logger.warning(
                    "%s: %s reaches beyond the image of %d x %d px; give fractions from 0 to 1, or pixels of this image",
                    self._source,
                    name,
                    width,
                    height,
                )
