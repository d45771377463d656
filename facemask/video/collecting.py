"""Collect the frames of a video that are worth labelling."""

from pathlib import Path

from facemask.io.collect import Collector
from facemask.types import FrameResult
from facemask.video.frame_images import FrameImages
from facemask.video.outputs import FrameOutput

MIN_SECONDS = 1.0  # of a source between two frames that are collected


class CollectingOutput(FrameOutput):
    """Passes frames to a collector: those in which a label differs from its track's, and those that it chooses itself."""

    def __init__(self, collector: Collector, source: str) -> None:
        """`source` is the name of the frames' source: its last part begins the names of the images."""
        self._collector, self._source = collector, Path(source).stem or "frame"
        self._next = 0.0

    def write(self, result: FrameResult, images: FrameImages) -> None:
        if result.time < self._next:
            return
        tracks = {track.id: track for track in result.tracks}
        changed = any(
            face.track in tracks and tracks[face.track].confirmed and face.label != tracks[face.track].confirmed_label
            for face in result.faces
        )
        name = f"{self._source}_{result.number:07d}"
        if self._collector.consider(images.plain, result.faces, name, "label unlike its track" if changed else ""):
            self._next = result.time + MIN_SECONDS
