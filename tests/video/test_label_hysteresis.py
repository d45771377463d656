"""The label of a tracked face: it stays while the classes are nearly even, and follows a mask that comes off."""

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


def track(probabilities: list[tuple[float, float]], rate: float) -> list[tuple[str, dict[str, float]]]:
    """Track one still face; return label and average probabilities of each frame after the first, which has no track yet.

    `probabilities` are those that the classifier returns for each frame, if it is asked.
    """
    current = [probabilities[0]]
    tracker = MaskTracker(lambda image, boxes: (np.array(current), np.ones(1)), CLASSES, rate)
    frames = []
    for number, current[0] in enumerate(probabilities):
        frames.append(tracker.update(IMAGE, number / rate, [FACE]))
    assert [[face.track for face in frame.faces] for frame in frames] == [[None]] + [[1]] * (len(frames) - 1)
    return [(frame.faces[0].label, frame.faces[0].probabilities) for frame in frames[1:]]


def test_label_stays_while_the_classes_are_nearly_even():
    """Two seconds for one class, two for the other, by 0.12: the more probable class changes, the label does not."""
    frames = track(([(0.56, 0.44)] * 50 + [(0.44, 0.56)] * 50) * 3, 25)
    more_probable = [max(probabilities, key=probabilities.__getitem__) for _, probabilities in frames]
    assert sum(a != b for a, b in pairwise(more_probable)) >= 5
    assert {label for label, _ in frames} == {"with_mask"}


def test_label_follows_a_mask_that_comes_off_after_a_minute():
    """However long the mask was worn, the label changes 1.4 s after it came off, when the averages differ by 0.15."""
    rate, worn = 5, 60
    labels = [label for label, _ in track([MASK] * (worn * rate) + [BARE] * (5 * rate), rate)]
    changed = labels.index("without_mask")
    assert labels[:changed] == ["with_mask"] * changed and set(labels[changed:]) == {"without_mask"}
    assert changed == worn * rate + 7  # frames; the first has no track


def test_a_confident_face_counts_more():
    """A classification is weighted by the face detector's confidence."""
    outputs = iter([(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
    tracker = MaskTracker(lambda image, boxes: (np.array([next(outputs)]), np.ones(1)), CLASSES, 25)
    for number, confidence in enumerate((0.9, 0.9, 0.3)):
        frame = tracker.update(IMAGE, number / 25, [Face(FACE.box, confidence)])
    old, new = 0.9 * math.exp(-1 / 25 / 2), 0.3
    assert frame.faces[0].probabilities["with_mask"] == pytest.approx(old / (old + new))
