"""What flows through the program: boxes, faces, detections, tracks and frames."""

from dataclasses import dataclass

import numpy as np

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, half-open


@dataclass(frozen=True)
class Face:
    """A face found: `box` is x1, y1, x2, y2 in pixels, half-open, inside the image, never empty."""

    box: Box
    confidence: float  # 0..1, the detector's that this is a face


@dataclass(frozen=True)
class Detection:
    """A face and what it wears: `box` is x1, y1, x2, y2 in pixels, half-open, inside the image, never empty."""

    box: Box  # smoothed where the face is tracked
    confidence: float  # 0..1, that this is a face
    label: str  # the likeliest of the model's classes
    probability: float  # 0..1, of that label
    probabilities: dict[str, float]  # of every class, summing to 1
    track: int | None = None  # the track's id; None in an image, and for a face of a video seen for the first time


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

    @property
    def probability(self) -> float:
        """Return the averaged probability of the label, 0..1."""
        return self.probabilities[self.label]


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
    """A picture of a video: `number` from 0, `time` in seconds from the first, always growing."""

    number: int
    time: float
    image: np.ndarray  # uint8 (H, W, 3) BGR
