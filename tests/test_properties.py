"""Properties that hold for any output of a network, any file and any call, tested with numbers from Hypothesis."""

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from facemask.boxes import clip_boxes, crop_face, iou_matrix, nms, square_around
from facemask.detector import enlarge
from facemask.models.center_face import CenterFaceDetector, PlattScaling, _resize, decode, tile_windows
from facemask.models.model_file import read_onnx_metadata
from facemask.models.res10 import Res10Detector
from facemask.types import Detection, Face
from facemask.video.tracker import MaskTracker

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # NumPy's, of numbers that do not fit

NAN, INF = float("nan"), float("inf")
CLASSES = ("mask_weared_incorrect", "with_mask", "without_mask")

FRACTIONS = st.floats(0, 1, width=32)
SIDES = st.integers(1, 300)  # px, of an image
SMALL_NUMBERS = st.integers(-8, 24).map(float)


def any_numbers(dtype: type) -> st.SearchStrategy:
    """NaN, infinite, huge and denormal ones among them, and those that whole boxes are made of."""
    extremes = [NAN, INF, -INF, *(sign * float(size) for sign in (1, -1) for size in (np.finfo(dtype).max, np.finfo(dtype).tiny))]
    return st.one_of(st.sampled_from(extremes), st.floats(width=np.finfo(dtype).bits), SMALL_NUMBERS)


ANY_NUMBERS, FAR_NUMBERS = any_numbers(np.float32), any_numbers(np.float64)


def boxes_of(numbers: st.SearchStrategy) -> st.SearchStrategy:
    """Boxes of any such corners, and some like those of faces: not empty, and at times one on another."""
    usual = st.tuples(*[st.integers(-4, 12)] * 2, *[st.integers(1, 8)] * 2)
    return st.tuples(*[numbers] * 4) | usual.map(lambda one: (one[0], one[1], one[0] + one[2], one[1] + one[3]))


def arrays_of(row: Callable[[type], st.SearchStrategy]) -> st.SearchStrategy:
    """A type of numbers, and a list of what goes into arrays of that type."""
    return st.one_of(*[st.tuples(st.just(dtype), st.lists(row(dtype), max_size=12)) for dtype in (np.float32, np.float64)])


def array_of(boxes: list, dtype: type = float) -> np.ndarray:
    return np.array(boxes, dtype).reshape(-1, 4)


def exact_overlap(box: np.ndarray, other: np.ndarray) -> Fraction:
    """Intersection over union without rounding, 0 where one is empty."""
    box, other = (tuple(map(Fraction, one.tolist())) for one in (box, other))
    areas = [max(one[2] - one[0], 0) * max(one[3] - one[1], 0) for one in (box, other)]
    sides = [max(min(box[end], other[end]) - max(box[end - 2], other[end - 2]), 0) for end in (2, 3)]
    intersection = sides[0] * sides[1]
    return intersection / (sum(areas) - intersection) if intersection else Fraction(0)


def is_inside(box: tuple, width: int, height: int) -> bool:
    x1, y1, x2, y2 = box
    return all(type(side) is int for side in box) and 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def check_faces(faces: list[Face], image: np.ndarray, confidence: float) -> None:
    """Assert what every detector promises."""
    confidences = [face.confidence for face in faces]
    assert all(is_inside(face.box, image.shape[1], image.shape[0]) for face in faces)
    assert all(confidence <= one <= 1 for one in confidences)
    assert confidences == sorted(confidences, reverse=True)


# boxes.py


@given(
    found=arrays_of(lambda dtype: st.tuples(boxes_of(any_numbers(dtype)), any_numbers(dtype) | FRACTIONS)),
    min_score=FRACTIONS,
    iou_threshold=FRACTIONS,
    most=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
@example((np.float32, [((-3e38, 0, 3e38, 1), 0.9)]), 0.5, 0.45, (9, 9))  # wider than a float32 can be
@example((np.float64, [((0, 0, 1, 1), 0.5), ((5, 5, 6, 6), 0.5 + 1e-12)]), 0.5, 0.45, (9, 9))  # equal in float32
def test_nms_of_any_numbers(found, min_score, iou_threshold, most):
    dtype, rows = found
    boxes, scores = array_of([box for box, _ in rows], dtype), np.array([score for _, score in rows], dtype)
    kept, kept_scores = nms(boxes, scores, min_score, iou_threshold, *most)
    assert (kept.dtype, kept_scores.dtype) == (dtype, dtype)
    assert kept.shape == (len(kept_scores), 4) and len(kept) <= min(most)
    assert np.isfinite(kept).all() and np.isfinite(kept_scores).all()
    assert Counter(zip(map(tuple, kept), kept_scores, strict=True)) <= Counter(zip(map(tuple, boxes), scores, strict=True))
    assert (kept_scores >= min_score).all() and (kept_scores[1:] <= kept_scores[:-1]).all()
    assert all(exact_overlap(one, other) <= iou_threshold + 1e-6 for one, other in combinations(kept, 2))


@given(
    found=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 8), st.integers(1, 8), st.integers(0, 8)), max_size=12
    ),
    min_score=st.sampled_from([0.0, 0.25, 0.5]),
    iou_threshold=st.sampled_from([0.1003, 0.4503, 0.5503]),  # never met exactly by boxes so small
    most=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
@example([(0, 0, 1, 1, 0)], 0.0, 0.4503, (1, 1))
def test_nms_equals_plain_suppression(found, min_score, iou_threshold, most):
    boxes = array_of([(x, y, x + width, y + height) for x, y, width, height, _ in found])
    scores = np.array([score / 8 for *_, score in found])
    expected: list[int] = []
    strongest = sorted(np.flatnonzero(scores >= min_score).tolist(), key=lambda index: -scores[index])
    for index in strongest[: most[0]]:
        if all(exact_overlap(boxes[index], boxes[other]) <= iou_threshold for other in expected):
            expected.append(index)
    kept, kept_scores = nms(boxes, scores, min_score, iou_threshold, *most)
    np.testing.assert_array_equal(kept, boxes[expected[: most[1]]])
    np.testing.assert_array_equal(kept_scores, scores[expected[: most[1]]])


@given(boxes=arrays_of(lambda dtype: boxes_of(any_numbers(dtype))), width=st.integers(1, 9999), height=st.integers(1, 9999))
@example((np.float32, [(NAN, 0, 5, 5)]), 9, 9)
def test_clip_boxes_of_any_numbers(boxes, width, height):
    """A box with NaN is dropped; an infinite one ends at the image's edge."""
    boxes = array_of(boxes[1], boxes[0])
    expected = {}
    for index, box in enumerate(boxes.tolist()):
        if not any(map(math.isnan, box)):
            clipped = [round(min(max(side, 0), limit)) for side, limit in zip(box, (width, height) * 2, strict=True)]
            if is_inside(tuple(clipped), width, height):
                expected[index] = clipped
    clipped, kept = clip_boxes(boxes, width, height)
    assert (clipped.shape, clipped.dtype.kind) == ((len(kept), 4), "i")
    assert dict(zip(kept.tolist(), clipped.tolist(), strict=True)) == expected


@given(boxes=st.lists(boxes_of(FAR_NUMBERS), max_size=6), others=st.lists(boxes_of(FAR_NUMBERS), max_size=6))
@example([(-INF, -INF, INF, INF)], [(-INF, -INF, INF, INF)])
@example([(0, 0, 1e200, 1e200)], [(0, 0, 1e200, 1e200)])
def test_iou_matrix_of_any_numbers(boxes, others):
    found = iou_matrix(boxes, others)
    assert found.shape == (len(boxes), len(others))
    assert ((found >= 0) & (found <= 1)).all()  # and so none is NaN
    np.testing.assert_array_equal(iou_matrix(others, boxes), found.T)


@given(boxes=st.lists(boxes_of(SMALL_NUMBERS), max_size=6), others=st.lists(boxes_of(SMALL_NUMBERS), max_size=6))
def test_iou_matrix_is_exact(boxes, others):
    expected = [[float(exact_overlap(one, other)) for other in array_of(others)] for one in array_of(boxes)]
    np.testing.assert_allclose(iou_matrix(boxes, others), np.reshape(expected, (len(boxes), len(others))), rtol=1e-12)


@given(
    corner=st.tuples(*[st.integers(-(10**6), 10**6)] * 2),
    sides=st.tuples(*[st.integers(0, 10**6)] * 2),
    margin=st.integers(0, 16).map(lambda eighths: eighths / 8),
)
def test_square_around_is_square_centred_and_around(corner, sides, margin):
    box = (*corner, corner[0] + sides[0], corner[1] + sides[1])
    x1, y1, x2, y2 = square_around(box, margin)
    assert x2 - x1 == y2 - y1 == max(sides) * (1 + 2 * margin)
    assert (x1 + x2, y1 + y2) == (box[0] + box[2], box[1] + box[3])
    assert x1 <= box[0] and y1 <= box[1] and x2 >= box[2] and y2 >= box[3]


@st.composite
def images_and_boxes(draw: st.DrawFn) -> tuple[int, int, tuple[float, float, float, float]]:
    """Return width and height of an image, and a finite box with a part in it."""
    starts, ends = [], []
    for side in (width := draw(SIDES), height := draw(SIDES)):
        farthest = draw(st.sampled_from([350, 1e5, 1e308]))
        starts.append(draw(st.floats(-farthest, side, exclude_max=True)))
        ends.append(draw(st.floats(max(starts[-1], 0), farthest, exclude_min=True)))
    return width, height, (*starts, *ends)


@given(where=images_and_boxes(), size=st.integers(1, 64), margin=FRACTIONS)
@example((20, 20, (0.6, 0.6, 1.4, 1.4)), 8, 0.0)
@example((10, 10, (9.6, 0.0, 12.0, 2.4)), 8, 0.0)
@example((10, 10, (-1e17, 0.0, 10.0, 10.0)), 8, 0.0)
@example((10, 10, (-1e308, 0.0, 1e308, 10.0)), 8, 0.0)
def test_crop_face_of_any_box_in_the_image(where, size, margin):
    width, height, box = where
    crop = crop_face(np.full((height, width, 3), 7, np.uint8), box, size, margin)
    assert (crop.shape, crop.dtype) == ((size, size, 3), np.uint8)
    assert (crop == 7).all()


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((NAN, 5, 10, 10), id="NaN"),
        pytest.param((5, 5, INF, 10), id="infinite"),
        pytest.param((-INF, -INF, INF, INF), id="infinite all round"),
        pytest.param((-20, 5, -10, 10), id="outside left"),
        pytest.param((40, 5, 50, 10), id="outside right"),
        pytest.param((5, -20, 10, -10), id="outside above"),
        pytest.param((5, 30, 10, 40), id="outside below"),
        pytest.param((5, 5, 5, 10), id="empty"),
    ],
)
def test_crop_face_outside_the_image(box):
    with pytest.raises(ValueError):
        crop_face(np.zeros((30, 40, 3), np.uint8), box, 16, 0.1)


# models/center_face.py


@dataclass(frozen=True)
class RandomOutput:
    """Makes a network's output of any shape from a few numbers."""

    numbers: list[float]
    seed: int

    def __call__(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(self.seed).choice(np.array(self.numbers, np.float32), shape)


OUTPUTS = st.builds(
    RandomOutput, st.lists(ANY_NUMBERS | st.floats(-9, 9, width=32), min_size=1, max_size=20), st.integers(0, 2**32 - 1)
)


@given(output=OUTPUTS, rows=st.integers(1, 20), columns=st.integers(1, 20), min_score=st.floats(0.001, 0.999))
@example(RandomOutput([1e30], 0), 1, 1, 0.5)
@example(RandomOutput([NAN], 0), 1, 1, 0.5)
@example(RandomOutput([9.0, -9.0], 30), 1, 2, 0.5)  # two cells that tell of boxes far apart
def test_decode_of_any_output(output, rows, columns, min_score):
    boxes, scores = decode(output(5, rows, columns), min_score, 4)
    assert boxes.shape == (len(scores), 4) and len(scores) <= rows * columns
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert ((scores > 0) & (scores < 1)).all()  # without the ends, of which `PlattScaling` makes no probability


@given(
    channel=st.integers(0, 4),
    value=st.sampled_from([NAN, INF, -INF]),
    at=st.tuples(st.integers(0, 15), st.integers(0, 15)).filter(lambda at: at != (8, 8)),
)
def test_decode_ignores_cells_that_are_not_finite(channel, value, at):
    cells = np.zeros((5, 16, 16), np.float32)
    cells[0] = -60
    cells[:, 8, 8] = 2.0, 0.25, -0.25, 1.0, 0.5
    expected = decode(cells, 0.5, 4)
    cells[channel, *at] = value
    for got, wanted in zip(decode(cells, 0.5, 4), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


@settings(deadline=None)  # up to a dozen runs of the network, each decoded
@given(
    output=OUTPUTS,
    width=SIDES,
    height=SIDES,
    size=st.sampled_from([64, 96, 288]),  # px; at the last the image is inferred downscaled as well
    tiles=st.booleans(),
    confidence=FRACTIONS,
)
def test_center_face_with_any_output(output, width, height, size, tiles, confidence):
    def run(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.float32 and images.shape[1] == 3
        return output(len(images), 5, images.shape[2] // 4, images.shape[3] // 4)

    image = np.zeros((height, width, 3), np.uint8)
    detector = CenterFaceDetector(run, PlattScaling(1.1, -0.2), size, tiles)
    check_faces(detector.detect(image, confidence), image, confidence)


@given(width=SIDES, height=SIDES, count=st.integers(1, 8), overlap=st.integers(0, 64))
def test_tile_windows_cover_the_image(width, height, count, overlap):
    windows = tile_windows((height, width), count, overlap)
    assert windows.shape == (count**2, 4)
    sides = {tuple(min(-(-side // count) + overlap, side) for side in (width, height))}
    assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in windows.tolist()} == sides
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in windows.tolist():
        assert x1 >= 0 and x2 <= width and y1 >= 0 and y2 <= height
        covered[y1:y2, x1:x2] = True
    assert covered.all()


@given(width=SIDES, height=SIDES, scale=st.floats(0.002, 4))
def test_resize_to_any_scale(width, height, scale):
    resized = _resize(np.full((height, width, 3), 7, np.uint8), scale)
    assert resized.dtype == np.uint8 and (resized == 7).all()
    for side, whole in zip(resized.shape, (height, width, 3 / scale), strict=True):
        assert abs(side - max(round(whole * scale), 1)) <= 1


# models/res10.py


class FakeNetwork:
    """Stands in for OpenCV's network."""

    def __init__(self, boxes: np.ndarray, scores: np.ndarray) -> None:
        self.outputs = {"boxes": boxes, "scores": scores}

    def setInput(self, images: np.ndarray) -> None:
        assert images.shape == (1, 3, 300, 300)

    def forward(self, names: list[str]) -> list[np.ndarray]:
        return [self.outputs[name] for name in names]


@given(
    found=st.lists(st.tuples(boxes_of(ANY_NUMBERS | st.floats(-1, 2, width=32)), ANY_NUMBERS | FRACTIONS), max_size=12),
    width=SIDES,
    height=SIDES,
    confidence=FRACTIONS,
)
@example([((0, 0, 1, 1), 2.0)], 9, 9, 0.5)
@example([((-3e38, 0, 3e38, 1), 0.9)], 9, 9, 0.5)
def test_res10_with_any_output(found, width, height, confidence):
    boxes, scores = array_of([box for box, _ in found], np.float32), np.array([[score] for _, score in found], np.float32)
    image = np.zeros((height, width, 3), np.uint8)
    check_faces(Res10Detector(FakeNetwork(boxes, scores)).detect(image, confidence), image, confidence)


# detector.py


@st.composite
def boxes_inside(draw: st.DrawFn, width: int, height: int) -> tuple[int, int, int, int]:
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))


@given(data=st.data(), width=SIDES, height=SIDES, factor=st.sampled_from([1, 2, 4, 8]))
def test_enlarge_stays_inside(data, width, height, factor):
    box = data.draw(boxes_inside(-(-width // factor), -(-height // factor)))
    found = [Detection(box, 0.9, "with_mask", 0.8, {"with_mask": 0.8, "without_mask": 0.2})]
    (enlarged,) = enlarge(found, factor, width, height)
    assert is_inside(enlarged.box, width, height)
    assert enlarged.box[:2] == (box[0] * factor, box[1] * factor)
    assert all(0 <= side * factor - large < factor for side, large in zip(box, enlarged.box, strict=True))


# models/model_file.py


def model_with(metadata: dict[str, str]) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:]))
    helper.set_model_props(model, metadata)
    return model.SerializeToString()


METADATA = st.dictionaries(st.text(max_size=8), st.text(max_size=40), max_size=4)


@given(metadata=METADATA)
def test_read_onnx_metadata_of_any_text(metadata):
    assert read_onnx_metadata(model_with(metadata)) == metadata


@st.composite
def broken_models(draw: st.DrawFn) -> bytes:
    """A model with a part of its bytes replaced."""
    model = model_with(draw(METADATA))
    start = draw(st.integers(0, len(model)))
    return model[:start] + draw(st.binary(max_size=12)) + model[draw(st.integers(start, min(start + 12, len(model)))) :]


@given(data=st.binary(max_size=200) | broken_models())
def test_read_onnx_metadata_of_any_bytes(data):
    with suppress(ValueError):  # the other outcome allowed
        metadata = read_onnx_metadata(data)
        assert all(type(text) is str for entry in metadata.items() for text in entry)


# video/tracker.py


@st.composite
def videos(draw: st.DrawFn) -> tuple[list[tuple[float, list[Face]]], int, int]:
    """Times and faces of frames, and their width and height; most faces are near those of other frames."""
    width, height = draw(st.integers(1, 120)), draw(st.integers(1, 120))
    people = draw(st.lists(boxes_inside(width, height), min_size=1, max_size=4))
    places = st.sampled_from(people) | boxes_inside(width, height)
    confidences = st.sampled_from([0.0, 0.3, 0.5, 0.9]) | st.floats(0, 1)
    gaps = st.sampled_from([0.0, 0.04, 0.1, 0.2, 1.2]) | st.floats(0, 1e6)  # s
    frames = draw(st.lists(st.tuples(gaps, st.lists(st.builds(Face, places, confidences), max_size=5)), max_size=15))
    return list(zip(accumulate(gap for gap, _ in frames), [faces for _, faces in frames], strict=True)), width, height


@pytest.fixture(scope="module")
def _trackers() -> None:
    """Load the library, which takes longer than a test may."""
    MaskTracker(lambda image, boxes: (np.empty((0, 3)), np.empty(0)), CLASSES, 25.0)


@pytest.mark.usefixtures("_trackers")
@pytest.mark.filterwarnings("ignore:.*duplicate timestamp")
@settings(deadline=None)  # up to 15 frames, and the Kalman filters' first run loads LAPACK
@given(
    video=videos(),
    rate=st.sampled_from([0.01, 1.0, 25.0, 240.0]) | st.floats(0.01, 240),
    confidence=st.sampled_from([0.5, 0.0, 1.0]) | st.floats(0, 1),
    said=st.lists(st.tuples(*[st.integers(0, 9)] * 3).filter(any), min_size=1, max_size=5),
)
@example(([(0.0, [Face((0, 0, 9, 9), 0.0)]), (0.1, [Face((0, 0, 9, 9), 0.0)])], 9, 9), 25.0, 0.0, [(0, 0, 1)])
def test_tracker_whatever_the_faces(video, rate, confidence, said):
    frames, width, height = video
    probabilities = [np.array(one) / sum(one) for one in said]

    def classify(image: np.ndarray, boxes: list) -> tuple[np.ndarray, np.ndarray]:
        return np.array([probabilities[sum(box) % len(said)] for box in boxes]), np.ones(len(boxes))

    tracker = MaskTracker(classify, CLASSES, rate, confidence)
    tracked, ended = set(), []
    for time, faces in frames:
        result = tracker.update(np.zeros((height, width, 3), np.uint8), time, faces)
        ids = [face.track for face in result.faces if face.track is not None]
        assert len(set(ids)) == len(ids) and [track.id for track in result.tracks] == ids
        assert set(ids).isdisjoint(track.id for track in ended)
        boxes = [face.box for face in result.faces] + result.predicted + [track.best_box for track in result.tracks]
        assert all(is_inside(box, width, height) for box in boxes)
        for face in (*result.faces, *result.tracks):
            assert sum(face.probabilities.values()) == pytest.approx(1)
            assert min(face.probabilities.values()) >= 0 and face.probability == face.probabilities[face.label]
        tracked.update(ids)
        ended += result.ended
    ended += tracker.finish()
    assert sorted(track.id for track in ended) == sorted(tracked) == list(range(1, len(tracked) + 1))
