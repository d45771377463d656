"""Process a video: detect the faces of each frame, track them, and pass each frame to every output."""

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice

import numpy as np

from facemask.drawing import draw_tracked, pixelate_faces
from facemask.models.center_face import CenterFaceDetector
from facemask.models.face_detectors import FaceDetector
from facemask.parallel import prefetch_map
from facemask.types import Box, Face, Frame, FrameResult
from facemask.video.outputs import FrameOutput
from facemask.video.sources import VideoSource
from facemask.video.tracker import MaskTracker

PREFETCH = 4  # frames per worker, of a file: classifications come in bursts, when many people come
HIDE_CONFIDENCE = 0.1  # from which a face is hidden, though less confident ones than asked for are not reported

DetectFaces = Callable[[np.ndarray], list[Face]]


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


class Session:
    """The processing of one source.

    Faces of several frames of a file are detected at once; a live source's frame is finished before the next is taken, so
    that outputs are not late.
    """

    def __init__(
        self,
        source: VideoSource,
        detect: DetectFaces,
        tracker: MaskTracker,
        outputs: Sequence[FrameOutput],
        workers: int,
        hide: bool = False,
    ) -> None:
        """`outputs` receive each frame in their order. With `hide` all faces are pixelated in what they show."""
        self.source, self.tracker, self.outputs = source, tracker, outputs
        self._detect, self._workers, self._hide = detect, workers, hide

    def run(self, max_frames: int | None = None) -> None:
        """Process the source to its end, to `max_frames`, or until it is stopped. Raises InputError if an output fails."""
        frames = islice(self.source.frames(self._stalled), max_frames)
        prefetch = 1 if self.source.is_live else PREFETCH
        with closing(prefetch_map(lambda frame: self._detect(frame.image), frames, self._workers, prefetch)) as detections:
            for frame, faces in detections:
                self._write(frame, faces.result())
                if self.source.is_stopped:  # frames that were read ahead are dropped
                    break

    def _write(self, frame: Frame, faces: list[Face]) -> None:
        result = self.tracker.update(frame.image, frame.time, faces, frame.number)
        image = frame.image
        if any(output.shows_image for output in self.outputs):
            image = self._annotate(image, result, [face.box for face in faces])
        for output in self.outputs:
            output.write(result, image)

    def _annotate(self, image: np.ndarray, result: FrameResult, detected: list[Box]) -> np.ndarray:
        """Return a copy of `image` with a box and a label on each face, the faces hidden first if asked for."""
        if self._hide:
            image = pixelate_faces(image, [*detected, *(face.box for face in result.faces), *result.predicted])
        return draw_tracked(image, result.faces)

    def _stalled(self, seconds: float) -> None:
        for output in self.outputs:
            output.stalled(seconds)
