"""The label of a track: it changes only when the evidence is clear, and old evidence fades."""

import math
from itertools import pairwise

import numpy as np
import pytest

from facemask.types import Face
from facemask.video.tracker import MaskTracker

CLASSES = ("with_mask", "without_mask")
IMAGE = np.zeros((200, 300, 3), np.uint8)
FACE = Face((100, 80, 130, 110), 0.9)
MASK, BARE = (0.95, 0.05), (0.05, 0.95)


def follow(probabilities: list[tuple[float, float]], rate: float) -> list[tuple[str, dict[str, float]]]:
    """Track one still face; return label and pooled probabilities of each frame after the first, which has no track yet.

    The classifier gives one pair of `probabilities` per call, in order, then the last pair again.
    """
    answers = iter(probabilities)
    last = probabilities[-1]
    tracker = MaskTracker(lambda image, boxes: np.array([next(answers, last)] * len(boxes)), CLASSES, rate)
    frames = [tracker.update(IMAGE, number / rate, [FACE]) for number in range(len(probabilities))]
    assert [[face.track for face in frame.faces] for frame in frames] == [[None]] + [[1]] * (len(frames) - 1)
    return [(frame.faces[0].label, frame.faces[0].probabilities) for frame in frames[1:]]


def test_label_stays_while_the_classes_are_nearly_even():
    """Two seconds for one class, two for the other, by 0.12: the more probable class changes, the label does not."""
    frames = follow(([(0.56, 0.44)] * 50 + [(0.44, 0.56)] * 50) * 3, 25)
    more_probable = [max(probabilities, key=probabilities.__getitem__) for _, probabilities in frames]
    assert sum(a != b for a, b in pairwise(more_probable)) >= 5
    assert {label for label, _ in frames} == {"with_mask"}


def test_label_changes_once_another_class_leads_by_0_15():
    frames = follow([(0.85, 0.15)] * 25 + [(0.15, 0.85)] * 75, 25)
    leads = [probabilities["without_mask"] - probabilities["with_mask"] for _, probabilities in frames]
    assert [label for label, _ in frames] == ["without_mask" if lead > 0.15 else "with_mask" for lead in leads]
    assert any(0 < lead <= 0.15 for lead in leads) and leads[-1] > 0.15


@pytest.mark.parametrize("seconds", [1.0, 2.0, 4.0])
def test_a_classification_counts_less_the_older_it_is(seconds):
    """1/e after two seconds."""
    (_, first), (_, pooled) = follow([MASK, (1.0, 0.0), (0.0, 1.0)], 1 / seconds)
    assert first["with_mask"] == 1
    old = math.exp(-seconds / 2)
    assert pooled["with_mask"] == pytest.approx(old / (1 + old))


def test_label_follows_a_mask_that_comes_off_after_a_minute():
    """However long the mask was worn, the label changes about two seconds after it came off."""
    rate, worn = 5, 60
    labels = [label for label, _ in follow([MASK] * (worn * rate) + [BARE] * (5 * rate), rate)]
    changed = labels.index("without_mask")
    assert labels[:changed] == ["with_mask"] * changed and set(labels[changed:]) == {"without_mask"}
    assert 1 <= changed / rate - worn <= 3


def test_a_sure_face_counts_more():
    """A classification is weighted by the face detector's confidence."""
    answers = iter([(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
    tracker = MaskTracker(lambda image, boxes: np.array([next(answers)]), CLASSES, 25)
    for number, confidence in enumerate((0.9, 0.9, 0.3)):
        frame = tracker.update(IMAGE, number / 25, [Face(FACE.box, confidence)])
    old, new = 0.9 * math.exp(-1 / 25 / 2), 0.3
    assert frame.faces[0].probabilities["with_mask"] == pytest.approx(old / (old + new))


@pytest.mark.parametrize(("probability", "settled"), [(0.69, False), (0.71, True)])
def test_label_is_settled_from_0_7_on(probability, settled):
    tracker = MaskTracker(lambda image, boxes: np.array([(1 - probability, probability)]), CLASSES, 25)
    for number in range(50):
        frame = tracker.update(IMAGE, number / 25, [FACE])
    assert [track.settled for track in frame.tracks] == [settled]
