"""Associate the faces of successive frames with tracks: the adapter to the library `trackers`."""

import math
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from facemask.types import Face

if TYPE_CHECKING:
    from trackers import ByteTrackTracker


def preload() -> None:
    """Begin to import the library on another thread: it takes half a second, and nothing needs it before the first faces."""

    def load() -> None:
        with suppress(ImportError):  # which the first use reports
            _import_tracker()

    threading.Thread(target=load, name="import", daemon=True).start()


def _import_tracker() -> type["ByteTrackTracker"]:
    from trackers import ByteTrackTracker

    return ByteTrackTracker


class ByteTrackAssociation:
    """ByteTrack (Zhang et al., 2022, https://arxiv.org/abs/2110.06864) as `trackers` has it.

    Confident faces are matched first, the others then continue the tracks that are left; Kalman filters predict where
    the face of each track is.
    """

    MAX_GAP, MAX_GAP_FRAMES = 1.5, 4  # s, or frames where they are rare, that a track outlives its last face
    MIN_IOU = 0.3  # intersection over union of a face with the box that its track predicts

    def __init__(self, rate: float, confidence: float) -> None:
        """`rate` is in frames per second; a face needs `confidence`, 0..1, to begin a track."""
        self._rate, self._confidence = rate, confidence
        self._first: tuple[float, Sequence[Face]] | None = None  # time and faces of the first frame
        self._has_begun = False  # the library has got the first frame

    @cached_property
    def _tracker(self) -> "ByteTrackTracker":
        return _import_tracker()(
            # at 30 a second, whatever the rate
            lost_track_buffer=math.ceil(30 * max(self.MAX_GAP, self.MAX_GAP_FRAMES / self._rate)),
            frame_rate=self._rate,
            track_activation_threshold=self._confidence,
            high_conf_det_threshold=self._confidence,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=self.MIN_IOU,
        )

    def update(self, time: float, faces: Sequence[Face]) -> list[int | None]:
        """Return the track ID of each face of a frame at `time` in s; None for a face that has no track yet."""
        if self._first is None:  # no face has a track yet, so that the first frame need not wait for the library
            self._first = time, faces
            return [None] * len(faces)
        if not self._has_begun:
            self._has_begun = True
            self._update(*self._first)
        return self._update(time, faces)

    def _update(self, time: float, faces: Sequence[Face]) -> list[int | None]:
        from supervision import Detections

        detections = Detections(
            xyxy=np.array([face.box for face in faces], np.float32).reshape(-1, 4),
            confidence=np.array([face.confidence for face in faces], np.float32),
            data={"index": np.arange(len(faces))},
        )
        tracked = self._tracker.update(detections, timestamp=time)
        ids: list[int | None] = [None] * len(faces)
        for index, id in zip(tracked.data.get("index", ()), tracked.tracker_id, strict=True):
            ids[int(index)] = int(id) if id >= 0 else None
        return ids

    def predicted_boxes(self) -> tuple[list[int], np.ndarray]:
        """Return the IDs of all tracks and their boxes (n, 4), x1, y1, x2, y2 in px, smoothed or predicted, not clipped."""
        if not self._has_begun:
            return [], np.empty((0, 4))
        objects = self._tracker.tracked_objects
        return objects.tracker_id.tolist(), objects.xyxy

    def ids(self) -> set[int]:
        """Return the IDs of the tracks that go on."""
        return {track.tracker_id for track in self._tracker.tracks} if self._has_begun else set()

    def remove(self, ids: Collection[int]) -> None:
        """End those tracks."""
        self._tracker.tracks = [track for track in self._tracker.tracks if track.tracker_id not in ids]

    def reset(self) -> None:
        """End all tracks."""
        self._tracker.reset()
