"""Process video: detect the faces of each frame, track them, and pass each frame to every output of its source."""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from facemask.detector import HIDE_CONFIDENCE
from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector
from facemask.models.face_detectors import FaceDetector
from facemask.parallel import prefetch_map
from facemask.types import Box, Face, Frame, FrameResult
from facemask.video.events import EventRecorder
from facemask.video.frame_images import FrameImages
from facemask.video.outputs import FrameOutput, Statistics
from facemask.video.sources import TICK, VideoSource
from facemask.video.tracker import Classification, MaskTracker
from facemask.video.zones import ZoneFilter

PREFETCH = 4  # frames per worker, of a file: classifications come in bursts, when many people come
DetectFaces = Callable[[np.ndarray], list[Face]]
ClassifyImages = Callable[[Sequence[tuple[np.ndarray, Sequence[Box]]]], list[Classification]]  # of images and their boxes

logger = logging.getLogger(__name__)


def face_detection(faces: FaceDetector, confidence: float, hide: bool, size: int | None = None) -> DetectFaces:
    """Return a function that detects the faces of an image, uint8 (H, W, 3) BGR, for tracking and, with `hide`, for hiding.

    The tracker asks for `confidence`, 0..1, and gets less confident faces too; those to be hidden may be less confident
    still. `size` is the longest side in px to which images are scaled; None is the detector's own, and with `hide` half the
    image's, if that is more: small faces can be recognized too.
    """
    min_confidence = MaskTracker.min_confidence(confidence)
    if hide:
        min_confidence = min(min_confidence, HIDE_CONFIDENCE)
    can_enlarge = hide and size is None and isinstance(faces, CenterFaceDetector)  # the res10 SSD has one size

    def detect(image: np.ndarray) -> list[Face]:
        return faces.detect(image, min_confidence, max(faces.size, max(image.shape[:2]) // 2) if can_enlarge else size)

    return detect


@dataclass
class Channel:
    """One source with what belongs to it alone: its tracker, its counts, and the outputs that receive its frames in order."""

    source: VideoSource
    tracker: MaskTracker
    outputs: Sequence[FrameOutput]
    zones: ZoneFilter
    statistics: Statistics = field(default_factory=Statistics)  # the first to receive a frame: others show its counts
    events: EventRecorder | None = None  # one of the outputs
    error: InputError | None = None  # why the source failed while others went on, as was reported
    frames_taken: int = 0

    def write(self, frame: Frame, detected: list[Face], result: FrameResult, hide: bool) -> None:
        """Pass a frame to the outputs; with `hide` all faces `detected` are pixelated in what they show."""
        result = self.zones.apply(result, frame.image)
        hidden = [face.box for face in detected] + [face.box for face in result.faces] + result.predicted if hide else []
        images = FrameImages(frame.image, result, hidden, self.zones.outlines)
        self.statistics.write(result, images)
        for output in self.outputs:
            output.write(result, images)

    def stalled(self, seconds: float) -> None:
        """Tell the outputs for how long the source has given no frame."""
        for output in self.outputs:
            output.stalled(seconds)


Batch = list[tuple[Channel, Frame]]  # frames that are processed together, at most one of each channel


class Session:
    """The processing of one source, or of several at once.

    Of a source that is stored, faces of several frames are detected at once. Of a live one the frame is finished before the
    next is taken, so that outputs are not late. Of several live ones the frames that are there are one batch, and the faces
    of the next batch are detected while those before are tracked; a source that gives no frame is not waited for.
    """

    def __init__(
        self, channels: Sequence[Channel], detect: DetectFaces, classify: ClassifyImages, workers: int, hide: bool = False
    ) -> None:
        """`workers` frames are detected at once. With `hide` all faces are pixelated in what the outputs show."""
        self.channels = channels
        self._detect, self._classify, self._workers, self._hide = detect, classify, workers, hide

    def run(self, max_frames: int | None = None) -> None:
        """Process the sources to their ends, to `max_frames` of each, or until all are stopped.

        Raises InputError if an output fails, or the only source does; of several that one ends, with a warning.
        """
        is_live = any(channel.source.is_live for channel in self.channels)
        ahead = (1, min(len(self.channels), 2)) if is_live else (self._workers, PREFETCH)
        with (
            ThreadPoolExecutor(self._workers, thread_name_prefix="detector") as pool,
            closing(prefetch_map(lambda batch: self._detect_faces(batch, pool), self._batches(max_frames), *ahead)) as detections,
        ):
            for batch, faces in detections:
                if batch:
                    self._write(batch, faces.result())
                if all(channel.source.is_stopped for channel in self.channels):  # frames that were read ahead are dropped
                    break

    def _batches(self, max_frames: int | None) -> Iterator[Batch]:
        """Yield the frames as they come, and an empty batch where there are none, so that those before are finished."""
        arrived = threading.Event()
        for channel in self.channels:
            channel.source.arrived = arrived
        going_on = list(self.channels)
        while going_on:
            arrived.clear()
            batch = [(channel, frame) for channel in going_on if (frame := self._poll(channel)) is not None]
            going_on = [
                channel
                for channel in going_on
                if not channel.source.has_ended and channel.frames_taken < (max_frames or math.inf)
            ]
            yield batch
            if not batch and going_on:
                arrived.wait(TICK)

    def _poll(self, channel: Channel) -> Frame | None:
        try:
            frame = channel.source.poll(channel.stalled)
        except InputError as error:
            if len(self.channels) == 1:
                raise
            logger.warning("%s", error)
            channel.error = error
            return None
        channel.frames_taken += frame is not None
        return frame

    def _detect_faces(self, batch: Batch, pool: ThreadPoolExecutor) -> list[list[Face]]:
        if len(batch) == 1:
            return [self._detect(batch[0][1].image)]
        return list(pool.map(self._detect, [frame.image for _, frame in batch]))

    def _write(self, batch: Batch, faces: list[list[Face]]) -> None:
        associated = [channel.tracker.associate(frame, found) for (channel, frame), found in zip(batch, faces, strict=True)]
        classified = self._classify([(each.frame.image, each.due_boxes) for each in associated])
        for (channel, frame), found, each, labels in zip(batch, faces, associated, classified, strict=True):
            channel.write(frame, found, channel.tracker.complete(each, labels), self._hide)
