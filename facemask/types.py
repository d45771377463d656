"""The data that flow through the program: boxes, faces, detections, tracks and frames."""

from dataclasses import dataclass

import numpy as np

from facemask.labels import UNSURE

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, half-open


@dataclass(frozen=True)
class Face:
    """A detected face: `box` is x1, y1, x2, y2 in pixels, half-open, inside the image, never empty."""

    box: Box
    confidence: float  # 0..1, of the face detector


@dataclass(frozen=True)
class Detection:
    """A face and the label of its mask: `box` is x1, y1, x2, y2 in pixels, half-open, inside the image, never empty."""

    box: Box  # smoothed where the face is tracked
    confidence: float  # 0..1, that this is a face
    label: str  # the most probable of the model's labels
    probability: float  # 0..1, of that label
    probabilities: dict[str, float]  # of every label, summing to 1
    track: int | None = None  # the track's id; None in an image, and for a face of a video detected for the first time
    zone: str | None = ""  # in which its centre is, of a video with zones; None outside of them: it is not counted

    @property
    def is_unsure(self) -> bool:
        """Return whether the label is too improbable to rely on (`labels.UNSURE`)."""
        return self.probability < UNSURE


@dataclass(frozen=True)
class FileResult:
    """The faces in an image file."""

    width: int  # px, of the whole image, upright
    height: int
    detections: list[Detection]  # most confident first, boxes in px of the whole image
    is_truncated: bool  # the face detector found as many faces as it may return: there may be more
    image: np.ndarray | None  # the whole image, uint8 (height, width, 3) BGR; None unless asked for
    hidden: list[Box]  # of faces to hide, the less confident ones too; empty unless asked for


@dataclass(frozen=True)
class Track:
    """A person as long as the face is tracked, up to a frame in which it was detected."""

    id: int  # from 1
    first_time: float  # s, of the first frame with an ID
    last_time: float  # s, of this frame
    frames: int  # in which the face was detected
    label: str  # the most probable class, with hysteresis (`LabelAverage`)
    probabilities: dict[str, float]  # of every class, averaged over the track, summing to 1
    confirmed: bool  # the label was classified often enough, and clearly enough, to rely on
    confirmed_label: str  # the last label that was confirmed; empty before
    best_box: Box  # in the frame that shows the face best
    best_time: float  # s, of that frame
    zone: str | None = ""  # in which the face is, of a video with zones; None outside of them: it makes no events and counts

    @property
    def probability(self) -> float:
        """Return the averaged probability of the label, 0..1."""
        return self.probabilities[self.label]

    @property
    def is_unsure(self) -> bool:
        """Return whether the label is too improbable to rely on (`labels.UNSURE`)."""
        return self.probability < UNSURE


@dataclass(frozen=True)
class FrameResult:
    """The faces of a frame, tracked."""

    number: int  # of the frame, from 0
    time: float  # s, from the first frame
    faces: list[Detection]  # most confident first
    tracks: list[Track]  # of `faces` that have one
    predicted: list[Box]  # where the faces of tracks may be that were not detected: as they moved, and where they were last
    ended: list[Track]  # tracks that have ended since the frame before


@dataclass(frozen=True)
class Frame:
    """An image of a video: `number` from 0, `time` in seconds from the first, always growing."""

    number: int
    time: float
    image: np.ndarray  # uint8 (H, W, 3) BGR


@dataclass(frozen=True)
class Event:
    """Something that happened to a person in a video: `record` is for JSON (docs/video.md, Events)."""

    record: dict
    jpeg: bytes | None = None  # the frame; None unless the event has just come up and somebody wants images
