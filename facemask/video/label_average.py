"""The label of one track: classifications averaged over time, so that a label does not flicker."""

import math
from collections.abc import Sequence

import numpy as np


class LabelAverage:
    """Averages the classifications of one person, the newer the more, and chooses a label with hysteresis."""

    MEMORY = 2.0  # s, after which a classification counts 1/e
    HYSTERESIS = 0.15  # averaged probability by which another label must lead to take over
    # A label is confirmed by this number of classifications or more, over this number of s, with this averaged probability:
    CONFIRM_COUNT, CONFIRM_TIME, CONFIRM_PROBABILITY = 5, 0.4, 0.7
    MIN_WEIGHT = 1e-6  # of a classification, so that there is an average
    MIN_FACE_PROBABILITY = 0.5  # averaged: below, what is tracked is not a face

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._weighted = np.zeros(len(self._classes))  # sum of the probabilities, each times its weight
        self._weight = 0.0
        self._face_weighted = 0.0  # sum of the probabilities of a face, each times its weight
        self._first_time = 0.0  # s, of the first classification
        self.time = 0.0  # s, of the last classification
        self.count = 0  # classifications
        self.label = ""  # empty before the first classification

    def add(self, probabilities: np.ndarray, face_probability: float, weight: float, time: float) -> None:
        """Add a classification at `time` in s, with a weight from 0.

        `probabilities` (classes,) sum to 1; `face_probability`, 0..1, is that the crop shows a face at all.
        """
        weight = max(weight, self.MIN_WEIGHT)
        kept = math.exp(-max(time - self.time, 0) / self.MEMORY)
        self._weighted = kept * self._weighted + weight * probabilities
        self._face_weighted = kept * self._face_weighted + weight * face_probability
        self._weight = kept * self._weight + weight
        self._first_time = self._first_time if self.count else time
        self.time, self.count = time, self.count + 1
        averages = self.probabilities
        most_probable = max(averages, key=averages.__getitem__)
        if not self.label or averages[most_probable] > averages[self.label] + self.HYSTERESIS:
            self.label = most_probable

    @property
    def probabilities(self) -> dict[str, float]:
        """Return the averaged probability of each class, summing to 1; only after a classification."""
        return dict(zip(self._classes, map(float, self._weighted / self._weight), strict=True))

    @property
    def is_face(self) -> bool:
        """Return whether the crops show a face, on average; only after a classification."""
        return self._face_weighted >= self.MIN_FACE_PROBABILITY * self._weight

    @property
    def probability(self) -> float:
        """Return the averaged probability of the label, 0..1."""
        return self.probabilities[self.label]

    def is_confirmed(self, time: float) -> bool:
        """Return whether the label can be relied on at `time` in s."""
        return (
            self.is_face
            and self.count >= self.CONFIRM_COUNT
            and time - self._first_time >= self.CONFIRM_TIME
            and self.probability >= self.CONFIRM_PROBABILITY
        )
