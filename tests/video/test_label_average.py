import math

import numpy as np
import pytest

from facemask.video.label_average import LabelAverage

CLASSES = ("with_mask", "without_mask")


def average_of(*classifications: tuple[float, float, float]) -> LabelAverage:
    """Return the average of classifications, each the probability of a mask, the weight and the time in s."""
    average = LabelAverage(CLASSES)
    for mask, weight, time in classifications:
        average.add(np.array([mask, 1 - mask]), 1.0, weight, time)
    return average


def test_one_classification_is_the_average():
    average = average_of((0.8, 0.5, 3.0))
    assert average.probabilities == pytest.approx({"with_mask": 0.8, "without_mask": 0.2})
    assert (average.label, average.count, average.time) == ("with_mask", 1, 3.0)
    assert average.probability == pytest.approx(0.8)


def test_label_before_the_first_classification_is_empty():
    assert (LabelAverage(CLASSES).label, LabelAverage(CLASSES).is_confirmed(9.0)) == ("", False)


def test_confident_faces_count_more():
    assert average_of((1.0, 0.9, 0.0), (0.0, 0.3, 0.0)).probabilities["with_mask"] == pytest.approx(0.75)


def test_weight_of_0_still_has_an_average():
    assert average_of((0.6, 0.0, 0.0)).probabilities["with_mask"] == pytest.approx(0.6)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 6.0])
def test_classification_counts_1_by_e_after_two_seconds(seconds):
    kept = math.exp(-seconds / 2)
    assert average_of((1.0, 1.0, 0.0), (0.0, 1.0, seconds)).probabilities["with_mask"] == pytest.approx(kept / (1 + kept))


@pytest.mark.parametrize(
    ("second", "label"),
    [
        pytest.param(0.30, "with_mask", id="leads by 0.15 less 0.01"),
        pytest.param(0.28, "without_mask", id="leads by 0.15 and 0.01"),
    ],
)
def test_another_label_must_lead_by_the_hysteresis(second, label):
    """The averages are (0.56 + second) / 2 for a mask, and the rest for none."""
    average = average_of((0.56, 1.0, 0.0), (second, 1.0, 0.0))
    assert average.probabilities["without_mask"] > 0.5
    assert average.label == label


@pytest.mark.parametrize(
    ("count", "seconds", "mask", "expected"),
    [
        pytest.param(5, 0.5, 0.9, True, id="enough"),
        pytest.param(4, 0.5, 0.9, False, id="too few classifications"),
        pytest.param(5, 0.3, 0.9, False, id="too soon"),
        pytest.param(5, 0.5, 0.69, False, id="not clear"),
        pytest.param(5, 0.5, 0.71, True, id="just clear"),
    ],
)
def test_is_confirmed(count, seconds, mask, expected):
    average = average_of(*((mask, 1.0, seconds * number / (count - 1)) for number in range(count)))
    assert average.is_confirmed(seconds) is expected


def test_label_is_confirmed_by_time_alone_after_the_last_classification():
    average = average_of(*((0.9, 1.0, 0.02 * number) for number in range(5)))
    assert [average.is_confirmed(time) for time in (0.08, 0.39, 0.41)] == [False, False, True]


@pytest.mark.parametrize(
    ("probabilities", "is_face"), [((1.0,), True), ((0.49,), False), ((0.0, 1.0), True), ((1.0, 0.0, 0.0), False)]
)
def test_is_face_by_the_averaged_probability(probabilities, is_face):
    average = LabelAverage(CLASSES)
    for face_probability in probabilities:
        average.add(np.array([1.0, 0.0]), face_probability, 0.9, 1.0)
    assert average.is_face == is_face


def test_what_is_not_a_face_is_never_confirmed():
    average = LabelAverage(CLASSES)
    for number in range(20):
        average.add(np.array([1.0, 0.0]), 0.4, 0.9, number / 10)
    assert not average.is_confirmed(2.0)
