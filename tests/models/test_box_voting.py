"""Box voting of the face detector: a box is the weighted mean of the boxes that the cells around a face give."""

import math

import numpy as np
import pytest

from facemask.models.center_face import decode

PEAK, NEIGHBOUR = 0.0, -1.0  # logits of the face's own cell and of the one cell that votes with it
CENTRE = 40  # row and column of the face's own cell
STRIDE = 4


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def decode_pair(
    size: float, across: int, down: int, width: float, peak: float = PEAK, neighbour: float = NEIGHBOUR
) -> tuple[np.ndarray, float]:
    """Return box and score of a face of `size` cells, for which a second cell, so many cells away, gives another `width`."""
    cells = np.zeros((5, 80, 80), np.float32)
    cells[0] = -60
    cells[:, CENTRE, CENTRE] = peak, 0, 0, math.log(size), math.log(size)
    cells[:, CENTRE + down, CENTRE + across] = neighbour, -down, -across, math.log(size), math.log(width)
    boxes, scores = decode(cells, 0.9 * sigmoid(peak), STRIDE)  # so that the second cell is no face of its own
    assert len(boxes) == 1
    return boxes[0], float(scores[0])


@pytest.mark.parametrize(
    ("size", "across", "down", "votes"),
    [
        pytest.param(2, 1, 0, True, id="small face, next cell"),
        pytest.param(2, 1, 1, True, id="small face, diagonal cell"),
        pytest.param(2, 2, 0, False, id="small face, second cell"),
        pytest.param(12, 3, 0, True, id="a quarter of the face away"),
        pytest.param(12, 0, 3, True, id="a quarter of the face below"),
        pytest.param(12, 3, 1, False, id="more than a quarter away"),
        pytest.param(60, 5, 0, True, id="large face, 5 cells"),
        pytest.param(60, 4, 4, False, id="large face, more than 5 cells"),
    ],
)
def test_cells_within_the_vote_radius_vote(size, across, down, votes):
    """The radius is a quarter of the face, 1.5 cells at least and 5 at most."""
    own, other = sigmoid(PEAK), sigmoid(NEIGHBOUR)
    width = (own * size + other * 0.8 * size) / (own + other) if votes else size
    box, _ = decode_pair(size, across, down, 0.8 * size)
    centre, half = CENTRE + 0.5, np.array([width, size]) / 2
    np.testing.assert_allclose(box, STRIDE * np.concatenate([centre - half, centre + half]), rtol=1e-5)


def test_score_grows_with_the_agreement_of_the_boxes():
    scores = [decode_pair(2, 1, 0, 2 * factor, -2.0, -2.5)[1] for factor in (1, 0.9, 0.7, 0.4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.8 * scores[0]


@pytest.mark.parametrize("neighbour", [-8.0, -4.0, -2.5])
def test_score_grows_with_how_much_the_peak_stands_out(neighbour):
    """By the power 0.4 of its ratio to the mean score of the nine cells that vote."""
    _, score = decode_pair(2, 1, 0, 2, -2.0, neighbour)
    own, other = sigmoid(-2.0), sigmoid(neighbour)
    assert score == pytest.approx(own * (own / ((own + other) / 9)) ** 0.4, rel=1e-4)
