"""Follow faces through a video: one id a person, one label a track, boxes that do not shake."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from facemask.boxes import clip_boxes, square_around
from facemask.types import Box, Detection, Face, FrameResult, Track

Classify = Callable[[np.ndarray, Sequence[Box]], np.ndarray]  # image and n boxes to probabilities (n, classes)


@dataclass
class _Evidence:
    """What the classifier said of a track, the newer the more."""

    MEMORY = 2.0  # s, after which a look counts 1/e
    LEAST_WEIGHT = 1e-6  # of a look, so that there is a mean

    weighted: np.ndarray  # (classes,), sum of probabilities by weight
    weight: float = 0.0
    time: float = 0.0  # s, of the last look
    height: int = 0  # px, of the face in the last look
    looks: int = 0
    best_quality: float = 0.0
    box: Box = (0, 0, 0, 0)  # of the last face, as it was found

    def add(self, probabilities: np.ndarray, weight: float, time: float, height: int) -> None:
        weight = max(weight, self.LEAST_WEIGHT)
        kept = math.exp(-max(time - self.time, 0) / self.MEMORY)
        self.weighted = kept * self.weighted + weight * probabilities
        self.weight = kept * self.weight + weight
        self.time, self.height, self.looks = time, height, self.looks + 1

    @property
    def mean(self) -> np.ndarray:
        return self.weighted / self.weight


class MaskTracker:
    """Gives faces of successive frames an id (ByteTrack, Zhang et al., 2022, of the library `trackers`) and a label."""

    GAP, GAP_FRAMES = 1.5, 4  # s, or frames where they are rare, that a track outlives its last face
    LEAST_OVERLAP = 0.3  # intersection over union of a face with where its track expects it
    LOW = 0.5  # of the confidence asked for: with less a face can go on a track, but begin none
    # Coming back from behind something, which first hid one side of the face and last the other, so that neither the
    # boxes overlap nor the motion says where to look:
    RETURN_TIME = 1.0  # s after the last face
    RETURN_REACH = 1.0  # of the larger height, from centre to centre, across and down
    RETURN_HEIGHT = 1.5  # ratio of the heights at most
    # The label:
    LEAD = 0.15  # of pooled probability that another label needs to take over
    SETTLED_LOOKS, SETTLED_TIME = 5, 0.4  # looks, and s since the first, after which a label may be settled
    SETTLED_PROBABILITY = 0.7
    # When the classifier looks again:
    FIRST_LOOKS = 3  # in frames one after the other
    INTERVAL = 0.2  # s, while the label is clear
    CLEAR = 0.9  # pooled probability
    GROWTH = 1.3  # of the face's height since the last look

    def __init__(self, classify: Classify, classes: Sequence[str], rate: float, confidence: float = 0.5) -> None:
        """`rate` is in frames per second; a face needs `confidence`, 0..1, to begin a track."""
        from trackers import ByteTrackTracker  # takes most of a second: for video alone

        self._classify, self._classes, self._confidence = classify, tuple(classes), confidence
        self._tracker = ByteTrackTracker(
            lost_track_buffer=math.ceil(30 * max(self.GAP, self.GAP_FRAMES / rate)),  # at 30 a second, whatever the rate
            frame_rate=rate,
            track_activation_threshold=confidence,
            high_conf_det_threshold=confidence,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=self.LEAST_OVERLAP,
        )
        self.tracks: dict[int, Track] = {}
        self._evidence: dict[int, _Evidence] = {}
        self._ids: dict[int, int] = {}  # of the tracker's ids, the tracks' own
        self._new_ids = count(1)

    @classmethod
    def least_confidence(cls, confidence: float) -> float:
        """Return the confidence from which faces are worth handing to `update`."""
        return cls.LOW * confidence

    def update(self, image: np.ndarray, time: float, faces: Sequence[Face]) -> FrameResult:
        """Track the `faces` found in `image`, uint8 (H, W, 3) BGR, at `time` in seconds, later than the one before."""
        faces = [face for face in faces if face.confidence >= self.least_confidence(self._confidence)]
        ids = self._follow(time, faces)
        due = [index for index, face in enumerate(faces) if self._is_due(ids[index], face, time)]
        looks: dict[int, np.ndarray] = {}
        if due:
            looks.update(zip(due, self._classify(image, [faces[index].box for index in due]), strict=True))
        boxes = self._boxes(image)
        seen, tracks = [], []
        for index, (face, id) in enumerate(zip(faces, ids, strict=True)):
            if id is not None:
                track = self._add(id, face, time, looks.get(index))
                box = boxes.pop(id, face.box)
                seen.append(Detection(box, face.confidence, track.label, track.probability, track.probabilities, id))
                tracks.append(track)
            elif index in looks:
                probabilities = self._named(looks[index])
                label = max(probabilities, key=probabilities.__getitem__)
                seen.append(Detection(face.box, face.confidence, label, probabilities[label], probabilities))
        return FrameResult(seen, tracks, [*boxes.values(), *self._last_places(set(ids), image)], self._forget())

    def finish(self) -> list[Track]:
        """Return the tracks that go on to the end of the video, which are over now."""
        self._tracker.reset()
        return self._forget()

    def _follow(self, time: float, faces: Sequence[Face]) -> list[int | None]:
        """Return the id of each face's track, None where it has none yet."""
        from supervision import Detections

        detections = Detections(
            xyxy=np.array([face.box for face in faces], np.float32).reshape(-1, 4),
            confidence=np.array([face.confidence for face in faces], np.float32),
            data={"index": np.arange(len(faces))},
        )
        tracked = self._tracker.update(detections, timestamp=time)
        ids: list[int | None] = [None] * len(faces)
        found = {int(index): int(id) for index, id in zip(tracked.data.get("index", ()), tracked.tracker_id, strict=True)}
        seen = {self._ids[id] for id in found.values() if id in self._ids}
        for index, id in found.items():
            if id >= 0:
                if id not in self._ids:
                    self._ids[id] = self._returned(faces[index].box, time, seen) or next(self._new_ids)
                    seen.add(self._ids[id])
                ids[index] = self._ids[id]
        return ids

    def _returned(self, box: Box, time: float, seen: set[int]) -> int | None:
        """Return the id of the track, not among those `seen` now, that a new face goes on, and let the tracker drop it."""
        nearest, least = None, self.RETURN_REACH
        for id, track in self.tracks.items():
            if id in seen or time - track.last_time > self.RETURN_TIME:
                continue
            last = self._evidence[id].box
            heights = sorted((box[3] - box[1], last[3] - last[1]))
            distance = max(abs(box[0] + box[2] - last[0] - last[2]), abs(box[1] + box[3] - last[1] - last[3])) / 2 / heights[1]
            if distance < least and heights[1] <= self.RETURN_HEIGHT * heights[0]:
                nearest, least = id, distance
        if nearest is not None:
            self._tracker.tracks = [one for one in self._tracker.tracks if self._ids.get(one.tracker_id) != nearest]
            self._ids = {theirs: ours for theirs, ours in self._ids.items() if ours != nearest}
        return nearest

    def _is_due(self, id: int | None, face: Face, time: float) -> bool:
        """Tell whether the classifier should look at a face."""
        if id is None:
            return face.confidence >= self._confidence
        evidence = self._evidence.get(id)
        return (
            evidence is None
            or evidence.looks < self.FIRST_LOOKS
            or time - evidence.time >= self.INTERVAL - 1e-6
            or evidence.mean.max() < self.CLEAR
            or face.box[3] - face.box[1] > self.GROWTH * evidence.height
        )

    def _add(self, id: int, face: Face, time: float, look: np.ndarray | None) -> Track:
        """Count a face, and what the classifier said of it if it looked, to its track."""
        height = face.box[3] - face.box[1]
        evidence = self._evidence.setdefault(id, _Evidence(np.zeros(len(self._classes))))
        evidence.box = face.box
        if look is not None:
            evidence.add(look, face.confidence, time, height)
        probabilities = self._named(evidence.mean)
        likeliest = max(probabilities, key=probabilities.__getitem__)
        track = self.tracks.get(id)
        if track is None:
            track = Track(id, time, time, 0, likeliest, probabilities, False, face.box, time)
            self.tracks[id] = track
        track.last_time, track.probabilities = time, probabilities
        track.frames += 1
        if probabilities[likeliest] > probabilities[track.label] + self.LEAD:
            track.label = likeliest
        track.settled = (
            evidence.looks >= self.SETTLED_LOOKS
            and time - track.first_time >= self.SETTLED_TIME
            and track.probability >= self.SETTLED_PROBABILITY
        )
        if track.settled:
            track.settled_label = track.label
        quality = face.confidence * height
        if quality > evidence.best_quality:
            evidence.best_quality, track.best_box, track.best_time = quality, face.box, time
        return track

    def _boxes(self, image: np.ndarray) -> dict[int, Box]:
        """Return where each track's face is, smoothed, or expected if it is not seen, as far as it is in the image."""
        objects = self._tracker.tracked_objects  # the states of Kalman filters
        boxes, kept = clip_boxes(objects.xyxy, image.shape[1], image.shape[0])
        return {self._ids[id]: tuple(box) for id, box in zip(objects.tracker_id[kept].tolist(), boxes.tolist(), strict=True)}

    def _last_places(self, seen: set[int | None], image: np.ndarray) -> list[Box]:
        """Return the squares in which the faces were last of the tracks that are not among those `seen`."""
        squares = [square_around(evidence.box, 0) for id, evidence in self._evidence.items() if id not in seen]
        boxes, _ = clip_boxes(np.array(squares).reshape(-1, 4), image.shape[1], image.shape[0])
        return [tuple(box) for box in boxes.tolist()]

    def _forget(self) -> list[Track]:
        """Remove and return the tracks that are over."""
        alive = {tracklet.tracker_id for tracklet in self._tracker.tracks}
        self._ids = {theirs: ours for theirs, ours in self._ids.items() if theirs in alive}
        over = self.tracks.keys() - self._ids.values()
        for id in over:
            del self._evidence[id]
        return [self.tracks.pop(id) for id in sorted(over)]

    def _named(self, probabilities: np.ndarray) -> dict[str, float]:
        return dict(zip(self._classes, map(float, probabilities), strict=True))
