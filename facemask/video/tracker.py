"""Track faces through a video: one ID per person, one label per track, boxes that do not shake."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from facemask.boxes import clip_boxes, square_around
from facemask.detector import MaskDetector
from facemask.types import Box, Detection, Face, Frame, FrameResult, Track
from facemask.video.association import ByteTrackAssociation
from facemask.video.label_average import LabelAverage

# The probabilities (n, classes) of the labels of n faces, and (n,) that they are faces.
Classification = tuple[np.ndarray, np.ndarray]
Classify = Callable[[np.ndarray, Sequence[Box]], Classification]  # of an image and n boxes


@dataclass(frozen=True)
class AssociatedFrame:
    """A frame whose faces have track IDs, before those that are due are classified."""

    frame: Frame
    faces: list[Face]
    ids: list[int | None]  # track ID of each face; None where it has none yet
    due: list[int]  # indices of the faces to classify

    @property
    def due_boxes(self) -> list[Box]:
        """Return the boxes of the faces to classify."""
        return [self.faces[index].box for index in self.due]


@dataclass
class _State:
    """What the tracker keeps of a track, beside the track itself."""

    average: LabelAverage
    box: Box  # of the last face, as it was detected
    height: int = 0  # px, of the face when it was last classified
    quality: float = 0.0  # of the frame that shows the face best
    is_reported: bool = False  # the track was in a result


class MaskTracker:
    """Gives the faces of successive frames a track ID and a label."""

    MIN_CONFIDENCE_RATIO = 0.5  # to the confidence asked for: a face with less can continue a track, but begin none
    # A person who comes back from behind something, which first hid one side of the face and last the other, so that
    # neither the boxes overlap nor the motion predicts the place:
    RETURN_TIME = 1.0  # s since the last face, at most
    RETURN_DISTANCE = 1.0  # of the larger height, from centre to centre, across and down, at most
    RETURN_HEIGHT_RATIO = 1.5  # of the heights, at most
    # A face is classified again:
    FIRST_CLASSIFICATIONS = 3  # in this number of frames one after the other
    CLASSIFY_INTERVAL = 0.2  # s, while the label is clear
    CLASSIFY_UNCLEAR_INTERVAL = 0.1  # s, while it is not: faces of successive frames are alike
    CLEAR_PROBABILITY = 0.9  # averaged
    CLASSIFY_GROWTH = 1.3  # of the face's height since the last classification

    def __init__(self, classify: Classify, classes: Sequence[str], rate: float, confidence: float = 0.5) -> None:
        """`classify` returns the probabilities of `classes`, in their order, of each face, and of its being a face.

        While a track on average is not a face (`LabelAverage.is_face`), it is not in the results.
        `rate` is in frames per second; a face needs `confidence`, 0..1, to begin a track.
        """
        self._classify, self._classes, self._confidence = classify, tuple(classes), confidence
        self._association = ByteTrackAssociation(rate, confidence)
        self._tracks: dict[int, Track] = {}
        self._states: dict[int, _State] = {}
        self._ids: dict[int, int] = {}  # track ID by the association's ID
        self._new_ids = count(1)
        self._numbers = count()

    @classmethod
    def for_detector(cls, detector: MaskDetector, fps: float, confidence: float = 0.5) -> "MaskTracker":
        """Return a tracker of a video of `fps` frames per second, whose faces `detector` classifies."""
        return cls(detector.classifier.classify_and_verify, detector.classifier.info.labels, fps, confidence)

    @classmethod
    def min_confidence(cls, confidence: float) -> float:
        """Return the confidence from which faces are worth passing to `update`."""
        return cls.MIN_CONFIDENCE_RATIO * confidence

    def update(self, image: np.ndarray, time: float, faces: Sequence[Face], number: int | None = None) -> FrameResult:
        """Track the `faces` detected in `image`, uint8 (H, W, 3) BGR, at `time` in s, later than the frame before.

        `number` is the frame's; None counts the calls, from 0.
        """
        called = next(self._numbers)
        frame = self.associate(Frame(called if number is None else number, time, image), faces)
        return self.complete(frame, self._classify(image, frame.due_boxes) if frame.due else (np.empty((0, 0)), np.empty(0)))

    def associate(self, frame: Frame, faces: Sequence[Face]) -> AssociatedFrame:
        """Give the `faces` detected in a frame track IDs: the first half of `update`, before faces are classified."""
        faces = [face for face in faces if face.confidence >= self.min_confidence(self._confidence)]
        ids = self._associate(frame.time, faces)
        due = [index for index, face in enumerate(faces) if self._is_due(ids[index], face, frame.time)]
        return AssociatedFrame(frame, faces, ids, due)

    def complete(self, associated: AssociatedFrame, classification: Classification) -> FrameResult:
        """Add the classification of the faces that were due to their tracks: the second half of `update`."""
        image, time = associated.frame.image, associated.frame.time
        faces, ids = associated.faces, associated.ids
        rows, face_probabilities = classification
        pairs = zip(rows, face_probabilities.tolist(), strict=True)
        classified: dict[int, tuple[np.ndarray, float]] = dict(zip(associated.due, pairs, strict=True))
        boxes = self._predicted_boxes(image)
        detections, tracks = [], []
        for index, (face, id) in enumerate(zip(faces, ids, strict=True)):
            if id is not None:
                track = self._extend(id, face, time, classified.get(index))
                box = boxes.pop(id, face.box)
                if not self._states[id].average.is_face:
                    continue
                self._states[id].is_reported = True
                detections.append(Detection(box, face.confidence, track.label, track.probability, track.probabilities, id))
                tracks.append(track)
            elif index in classified:
                row, face_probability = classified[index]
                if face_probability < LabelAverage.MIN_FACE_PROBABILITY:
                    continue
                probabilities = dict(zip(self._classes, map(float, row), strict=True))
                label = max(probabilities, key=probabilities.__getitem__)
                detections.append(Detection(face.box, face.confidence, label, probabilities[label], probabilities))
        predicted = [*boxes.values(), *self._last_places(set(ids), image)]
        return FrameResult(associated.frame.number, time, detections, tracks, predicted, self._remove_ended())

    def finish(self) -> list[Track]:
        """End all tracks, and return those that had not ended."""
        self._association.reset()
        return self._remove_ended()

    def _associate(self, time: float, faces: Sequence[Face]) -> list[int | None]:
        """Return the track ID of each face, None where it has none yet."""
        ids: list[int | None] = [None] * len(faces)
        associated = self._association.update(time, faces)
        present = {self._ids[id] for id in associated if id in self._ids}
        for index, id in enumerate(associated):
            if id is None:
                continue
            if id not in self._ids:
                self._ids[id] = self._find_returned(faces[index].box, time, present) or next(self._new_ids)
                present.add(self._ids[id])
            ids[index] = self._ids[id]
        return ids

    def _find_returned(self, box: Box, time: float, present: set[int]) -> int | None:
        """Return the ID of the track, not among those `present`, that a new face continues; its old association ends."""
        nearest, min_distance = None, self.RETURN_DISTANCE
        for id, track in self._tracks.items():
            if id in present or time - track.last_time > self.RETURN_TIME:
                continue
            last = self._states[id].box
            heights = sorted((box[3] - box[1], last[3] - last[1]))
            distance = max(abs(box[0] + box[2] - last[0] - last[2]), abs(box[1] + box[3] - last[1] - last[3])) / 2 / heights[1]
            if distance < min_distance and heights[1] <= self.RETURN_HEIGHT_RATIO * heights[0]:
                nearest, min_distance = id, distance
        if nearest is not None:
            self._association.remove({theirs for theirs, ours in self._ids.items() if ours == nearest})
            self._ids = {theirs: ours for theirs, ours in self._ids.items() if ours != nearest}
        return nearest

    def _is_due(self, id: int | None, face: Face, time: float) -> bool:
        """Return whether a face is to be classified."""
        if id is None:
            return face.confidence >= self._confidence
        state = self._states.get(id)
        if state is None or state.average.count < self.FIRST_CLASSIFICATIONS:
            return True
        is_clear = max(state.average.probabilities.values()) >= self.CLEAR_PROBABILITY
        return (
            time - state.average.time >= (self.CLASSIFY_INTERVAL if is_clear else self.CLASSIFY_UNCLEAR_INTERVAL) - 1e-6
            or face.box[3] - face.box[1] > self.CLASSIFY_GROWTH * state.height
        )

    def _extend(self, id: int, face: Face, time: float, classified: tuple[np.ndarray, float] | None) -> Track:
        """Add a face to its track, with its classification if it has one, and return the track."""
        height = face.box[3] - face.box[1]
        state = self._states.setdefault(id, _State(LabelAverage(self._classes), face.box))
        state.box = face.box
        if classified is not None:
            state.average.add(*classified, face.confidence, time)
            state.height = height
        previous = self._tracks.get(id)
        average, is_confirmed = state.average, state.average.is_confirmed(time)
        is_best = face.confidence * height > state.quality
        if is_best:
            state.quality = face.confidence * height
        self._tracks[id] = Track(
            id=id,
            first_time=previous.first_time if previous else time,
            last_time=time,
            frames=previous.frames + 1 if previous else 1,
            label=average.label,
            probabilities=average.probabilities,
            confirmed=is_confirmed,
            confirmed_label=average.label if is_confirmed else previous.confirmed_label if previous else "",
            best_box=face.box if is_best or previous is None else previous.best_box,
            best_time=time if is_best or previous is None else previous.best_time,
        )
        return self._tracks[id]

    def _predicted_boxes(self, image: np.ndarray) -> dict[int, Box]:
        """Return each track's box, smoothed, or predicted if its face is not detected, as far as it is in the image."""
        ids, boxes = self._association.predicted_boxes()
        clipped, kept = clip_boxes(boxes, image.shape[1], image.shape[0])
        return {self._ids[ids[index]]: _box(row) for index, row in zip(kept, clipped.tolist(), strict=True)}

    def _last_places(self, present: set[int | None], image: np.ndarray) -> list[Box]:
        """Return the squares where the faces were last of the tracks that are not among those `present`."""
        squares = [square_around(state.box, 0) for id, state in self._states.items() if id not in present]
        boxes, _ = clip_boxes(np.array(squares).reshape(-1, 4), image.shape[1], image.shape[0])
        return [_box(row) for row in boxes.tolist()]

    def _remove_ended(self) -> list[Track]:
        """Remove and return the tracks that have ended."""
        going_on = self._association.ids()
        self._ids = {theirs: ours for theirs, ours in self._ids.items() if theirs in going_on}
        ended = sorted(self._tracks.keys() - self._ids.values())
        states, tracks = [self._states.pop(id) for id in ended], [self._tracks.pop(id) for id in ended]
        return [track for state, track in zip(states, tracks, strict=True) if state.is_reported]


def _box(sides: Iterable[int]) -> Box:
    x1, y1, x2, y2 = sides
    return x1, y1, x2, y2
