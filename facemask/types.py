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


@dataclass
class Track:
    """A person as long as the face is followed; grows from frame to frame."""

    id: int  # from 1
    first_time: float  # s, of the first frame with an id
    last_time: float  # s, of the last frame in which the face was seen
    frames: int  # in which it was seen
    label: str  # changes only when the evidence does, see `MaskTracker.LEAD`
    probabilities: dict[str, float]  # of every class, pooled over the track, summing to 1
    settled: bool  # there was enough evidence for the label
    best_box: Box  # of the frame that showed the face best
    best_time: float  # s, of that frame
    settled_label: str = ""  # the last label that it was settled on; empty before

    @property
    def probability(self) -> float:
        """Return the pooled probability of the label, 0..1."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class FrameResult:
    """What is known of a frame once its faces are tracked."""

    faces: list[Detection]  # surest first
    tracks: list[Track]  # of `faces` that have one
    expected: list[Box]  # where the faces of tracks may be that are not seen now: as they moved, and where they were last
    left: list[Track]  # tracks that are over since the frame before


@dataclass(frozen=True)
class Frame:
    """A picture of a video: `number` from 0, `time` in seconds from the first, always growing."""

    number: int
    time: float
    image: np.ndarray  # uint8 (H, W, 3) BGR
