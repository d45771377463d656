from itertools import pairwise

import numpy as np
import pytest

from facemask.io.records import tracked_face_record
from facemask.types import Face
from facemask.video.tracker import MaskTracker

CLASSES = ("mask_weared_incorrect", "with_mask", "without_mask")
RATE = 25.0
IMAGE = np.zeros((200, 300, 3), np.uint8)
MASK, NONE, UNSURE = (0.02, 0.95, 0.03), (0.02, 0.03, 0.95), (0.1, 0.42, 0.48)


class Classifier:
    """Returns for the n-th call the n-th of its answers, then the last; counts the faces it receives."""

    def __init__(self, *answers: tuple[float, float, float], face_probability: float = 1.0) -> None:
        self.answers, self.face_probability, self.calls, self.faces = answers, face_probability, 0, 0

    def __call__(self, image: np.ndarray, boxes: list) -> tuple[np.ndarray, np.ndarray]:
        assert image.shape == IMAGE.shape
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        self.faces += len(boxes)
        return np.array([answer] * len(boxes)), np.full(len(boxes), self.face_probability)


def face(x: float = 100, y: float = 80, side: int = 30, confidence: float = 0.9) -> Face:
    return Face((round(x), round(y), round(x) + side, round(y) + side), confidence)


def track(classifier: Classifier, frames: list[list[Face]], rate: float = RATE):
    """Return the tracker and what it makes of each frame."""
    tracker = MaskTracker(classifier, CLASSES, rate)
    return tracker, [tracker.update(IMAGE, number / rate, faces) for number, faces in enumerate(frames)]


def ids(results: list) -> list[list[int | None]]:
    return [[face.track for face in result.faces] for result in results]


def test_no_face():
    classifier = Classifier(MASK)
    tracker, results = track(classifier, [[], []])
    assert [(result.faces, result.tracks, result.predicted, result.ended) for result in results] == [([], [], [], [])] * 2
    assert (tracker.finish(), classifier.calls) == ([], 0)


def test_one_face_keeps_its_id():
    _, results = track(Classifier(MASK), [[face(100 + 2 * number)] for number in range(20)])
    assert ids(results) == [[None]] + [[1]] * 19  # no ID before it is detected twice
    last = results[-1].faces[0]
    assert (last.label, last.confidence) == ("with_mask", 0.9)
    assert last.probability == pytest.approx(0.95) and sum(last.probabilities.values()) == pytest.approx(1)
    assert results[-1].tracks[0].frames == 19
    assert (results[-1].tracks[0].first_time, results[-1].tracks[0].last_time) == (1 / RATE, 19 / RATE)


def test_two_faces_keep_theirs_whatever_their_order():
    left, right = [face(40 + number) for number in range(10)], [face(200 - number, side=40) for number in range(10)]
    _, results = track(Classifier(MASK), [[a, b] if n % 2 else [b, a] for n, (a, b) in enumerate(zip(left, right, strict=True))])
    for result in results[1:]:
        assert {face.track: face.box[0] < 110 for face in result.faces} in ({1: True, 2: False}, {1: False, 2: True})
    assert len({tuple(sorted((face.track, face.box[0] < 110) for face in result.faces)) for result in results[1:]}) == 1


@pytest.mark.parametrize(("gap", "same"), [(0.5, True), (1.4, True), (2.0, False)])
@pytest.mark.parametrize("rate", [8.0, 25.0, 60.0])
def test_gap(gap, same, rate):
    missing = round(gap * rate)
    tracker, results = track(Classifier(MASK), [[face()]] * 10 + [[]] * missing + [[face()]] * 5, rate)
    assert ids(results)[-1] == [1 if same else 2]
    gone = [track.id for result in results for track in result.ended]
    assert gone == ([] if same else [1])
    assert [track.id for track in tracker.finish()] == [1 if same else 2]
    assert tracker.finish() == []
    # Until its track ends its place is predicted, so that it can be hidden.
    assert results[10].predicted == [(100, 80, 130, 110)] * 2 and results[10].faces == []


@pytest.mark.parametrize(
    ("missing", "side", "across", "same"),
    [
        pytest.param(0.5, 30, 24, True, id="detected again on the other side"),
        pytest.param(0.5, 30, 40, False, id="too far away"),
        pytest.param(1.2, 30, 24, False, id="too late"),
        pytest.param(0.5, 50, 24, False, id="too large"),
    ],
)
def test_coming_back_from_behind_a_pillar(missing, side, across, same):
    """A strip of the face is the last that is detected, another strip the first."""
    strip = Face((100, 80, 108, 110), 0.9), Face((100 + across, 80, 108 + across, 80 + side), 0.9)
    frames = [[face()]] * 10 + [[strip[0]]] * 3 + [[]] * round(missing * RATE) + [[strip[1]]] * 3
    tracker, results = track(Classifier(MASK), frames)
    assert ids(results)[12:] == [[1]] + [[]] * round(missing * RATE) + [[None], [1 if same else 2], [1 if same else 2]]
    assert [track.id for track in tracker.finish()] == ([1] if same else [1, 2])


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_rare_frames(rate):
    _, results = track(Classifier(NONE), [[face()]] * 8, rate)
    assert ids(results) == [[None]] + [[1]] * 7
    assert results[-1].tracks[0].confirmed_label == "without_mask"


def test_weak_face_continues_a_track_but_begins_none():
    weak = face(confidence=0.3)
    _, results = track(Classifier(MASK), [[weak]] * 3 + [[face()]] * 3 + [[weak]] * 3)
    assert ids(results) == [[], [], [], [None], [1], [1], [1], [1], [1]]
    assert [result.predicted for result in results] == [[]] * 9


def test_very_weak_face_is_ignored():
    _, results = track(Classifier(MASK), [[face()]] * 3 + [[face(confidence=0.2)]])
    assert (ids(results)[-1], results[-1].predicted) == ([], [face().box] * 2)


def test_label_does_not_flicker():
    flickering = Classifier(*[MASK, MASK, MASK, NONE, MASK, UNSURE] * 20)
    _, results = track(flickering, [[face()]] * 100)
    assert {face.label for result in results[1:] for face in result.faces} == {"with_mask"}
    assert results[-1].tracks[0].confirmed_label == "with_mask"


def test_label_changes_when_the_mask_comes_off():
    _, results = track(Classifier(*[MASK] * 12, NONE), [[face()]] * 200)
    labels = [result.faces[0].label for result in results]
    assert labels[20] == "with_mask" and labels[-1] == "without_mask"
    assert sum(a != b for a, b in pairwise(labels)) == 1


def test_label_is_confirmed_with_enough_classifications():
    tracker, confirmed = MaskTracker(Classifier(NONE), CLASSES, RATE), []
    for number in range(30):
        result = tracker.update(IMAGE, number / RATE, [face()])
        confirmed.append([(track.confirmed, track.confirmed_label) for track in result.tracks])
    first = confirmed.index([(True, "without_mask")])
    assert 10 <= first <= 15  # about half a second
    assert confirmed == [[]] + [[(False, "")]] * (first - 1) + [[(True, "without_mask")]] * (30 - first)


def test_unsure_label_is_not_confirmed():
    _, results = track(Classifier(UNSURE), [[face()]] * 60)
    assert (results[-1].tracks[0].confirmed, results[-1].tracks[0].confirmed_label) == (False, "")


def test_clear_face_is_classified_now_and_then_an_unclear_one_more_often():
    clear, unclear = Classifier(MASK), Classifier(UNSURE)
    track(clear, [[face()]] * 50)
    track(unclear, [[face()]] * 50)
    # before its track, thrice, then each 0.2 s or 0.1 s of the other 46 frames, 25 a second
    assert (clear.faces, unclear.faces) == (1 + 3 + 9, 1 + 3 + 15)


def test_face_that_grows_is_classified_again():
    classifier = Classifier(MASK)
    track(classifier, [[face()]] * 5 + [[face(98, 78, 40)]])
    assert classifier.faces == 1 + 3 + 1


def test_boxes_shake_less_and_do_not_lag():
    generator = np.random.default_rng(1)
    true = 50 + 2.0 * np.arange(60)  # px, 50 a second
    _, results = track(Classifier(MASK), [[face(x + generator.normal(0, 2), 80 + generator.normal(0, 2))] for x in true])
    smooth = np.array([result.faces[0].box[0] for result in results[10:]])
    error = smooth - true[10:]
    assert abs(error.mean()) < 1  # px: half a frame
    assert error.std() < 1.6  # px, of 2


def test_boxes_stay_in_the_image():
    _, results = track(Classifier(MASK), [[face(270 + min(3 * number, 20), side=20)] for number in range(12)] + [[]] * 20)
    boxes = [face.box for result in results for face in result.faces] + [box for result in results for box in result.predicted]
    assert len(boxes) > 12
    assert all(0 <= x1 < x2 <= 300 and 0 <= y1 < y2 <= 200 for x1, y1, x2, y2 in boxes)


def test_best_box_is_the_largest_confident_one():
    frames = [[face(side=30)], [face(side=30)], [face(side=36)], [face(side=38, confidence=0.5)], [face(side=30)]]
    _, results = track(Classifier(MASK), frames)
    assert (results[-1].tracks[0].best_box, results[-1].tracks[0].best_time) == ((100, 80, 136, 116), 2 / RATE)


def test_json_of_a_face():
    _, results = track(Classifier((1 / 3, 1 / 3 + 1e-6, 1 / 3 - 1e-6)), [[face(confidence=0.987654)]])
    assert tracked_face_record(results[0].faces[0]) == {
        "track": None,
        "box": (100, 80, 130, 110),
        "confidence": 0.9877,
        "label": "with_mask",
        "probability": 0.3333,
        "unsure": True,
        "probabilities": {"mask_weared_incorrect": 0.3333, "with_mask": 0.3333, "without_mask": 0.3333},
    }


@pytest.mark.parametrize(("face_probability", "count"), [(0.51, 1), (0.49, 0)])
def test_what_the_classifier_calls_background_is_not_tracked(face_probability, count):
    tracker, results = track(Classifier(MASK, face_probability=face_probability), [[face()]] * 20)
    assert [len(result.faces) for result in results] == [count] * 20
    assert [len(result.tracks) for result in results[5:]] == [count] * 15
    assert len(tracker.finish()) == count


def test_a_track_is_a_face_by_the_average_of_its_classifications():
    classifier = Classifier(MASK)
    tracker = MaskTracker(classifier, CLASSES, RATE)
    shown = []
    for number in range(60):
        classifier.face_probability = 0.0 if number == 20 else 1.0
        shown.append(len(tracker.update(IMAGE, number / RATE, [face()]).faces))
    assert shown == [1] * 60


def test_a_track_that_was_reported_ends_in_a_result_even_as_background():
    classifier = Classifier(MASK)
    tracker, ended = MaskTracker(classifier, CLASSES, RATE), []
    for number in range(200):
        classifier.face_probability = 1.0 if number < 20 else 0.0
        result = tracker.update(IMAGE, number / RATE, [face()])
        ended += result.ended
    assert not result.faces and not ended
    (track,) = tracker.finish()
    assert track.id == 1 and not track.confirmed
