import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector, PlattScaling, _resize, decode, tile_windows
from facemask.models.model_file import ModelFile
from facemask.models.onnx_session import open_onnx, open_with_opencv
from tests.helpers import CORRUPT, EXAMPLES, PEOPLE, ROOT

FILE = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME


@pytest.fixture(scope="module")
def detector() -> CenterFaceDetector:
    return CenterFaceDetector.load(FILE)


def output_with(*faces: tuple, rows: int = 16, columns: int = 24) -> np.ndarray:
    """Make a network's output (5, rows, columns) with faces (row, column, logit, y, x, height, width), in cells."""
    output = np.zeros((5, rows, columns), np.float32)
    output[0] = -60
    for row, column, logit, y, x, height, width in faces:
        output[:, row, column] = logit, y, x, np.log(height), np.log(width)
    return output


def test_decode():
    boxes, _ = decode(output_with((3, 5, 2.0, 0.25, -0.25, 4, 2), (10, 20, 0.0, 0, 0, 1, 1)), 0.5, 4)
    np.testing.assert_allclose(boxes, [(17, 7, 25, 23), (80, 40, 84, 44)], atol=1e-4)


def test_decode_keeps_peaks():
    output = output_with((3, 5, 2.0, 0, 0, 4, 4), (3, 6, 1.9, 0, 0, 4, 4), (4, 7, 1.8, 0, 0, 4, 4), (9, 9, 0.1, 0, 0, 4, 4))
    assert len(decode(output, 0.1, 4)[0]) == 2


def test_decode_averages_the_boxes_around_a_peak():
    one, other = 1 / (1 + np.exp(3.0)), 1 / (1 + np.exp(3.5))  # scores of two cells, whose boxes differ in width
    boxes, scores = decode(output_with((5, 5, -3.0, 0, 0, 4, 4), (5, 6, -3.5, 0, -1, 4, 2)), 0.02, 4)
    half = 4 * (2 * one + 1 * other) / (one + other)
    np.testing.assert_allclose(boxes, [(22 - half, 14, 22 + half, 30)], atol=1e-4)
    agreeing = decode(output_with((5, 5, -3.0, 0, 0, 4, 4), (5, 6, -3.5, 0, -1, 4, 4)), 0.02, 4)[1]
    alone = decode(output_with((5, 5, -3.0, 0, 0, 4, 4)), 0.02, 4)[1]
    assert scores < agreeing < alone < 0.5


@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [(800, 600, 0.64), (1001, 667, 0.3), (4095, 1501, 0.07), (1, 9, 0.9), (64, 48, 2.0), (513, 385, 0.99)],
)
def test_resize_averages_without_a_shift(width, height, scale):
    waves = np.sin(np.linspace(0, 12, width)) * 60 + np.cos(np.linspace(0, 9, height))[:, None] * 60 + 128
    image = np.repeat(waves.astype(np.uint8)[..., None], 3, axis=2)
    resized = _resize(image, scale)
    for side, whole in zip(resized.shape[:2], (height, width), strict=True):
        assert side == pytest.approx(max(whole * scale, 1), abs=1.01)
    # The pixels are those of an exact average, where both have them.
    size = max(1, round(width * scale)), max(1, round(height * scale))
    exact = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    rows, columns = min(size[1], resized.shape[0]), min(size[0], resized.shape[1])
    difference = np.abs(resized[:rows, :columns].astype(int) - exact[:rows, :columns])
    assert difference.mean() < 3 and difference[:, columns * 9 // 10 :].mean() < 6


def test_decode_without_faces():
    boxes, scores = decode(output_with(), 0.5, 4)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_network_gives_the_same_output_on_both_libraries(detector):
    image = cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), (320, 160))
    by_opencv, as_used = open_with_opencv(FILE), open_onnx(ModelFile.read(FILE))[0]
    for shape in ((160, 320), (64, 64), (96, 128)):
        images = cv2.dnn.blobFromImages([image[: shape[0], : shape[1]]] * 2, swapRB=True)
        np.testing.assert_allclose(by_opencv(images), as_used(images), atol=1e-3)


def test_detect_people(detector):
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    faces = detector.detect(image)
    assert len(faces) == len(PEOPLE)
    boxes = sorted((face.box for face in faces), key=lambda box: (box[1] > 330, box[0]))
    np.testing.assert_allclose(boxes, PEOPLE, atol=20)
    assert [face.confidence for face in faces] == sorted((face.confidence for face in faces), reverse=True)


@pytest.mark.parametrize("tiles", [False, True])
def test_detect_low_confidence_stays_inside(astronaut, tiles):
    faces = CenterFaceDetector.load(FILE, 256, tiles).detect(astronaut, 0.0)
    assert len(faces) > 1
    for x1, y1, x2, y2 in (face.box for face in faces):
        assert 0 <= x1 < x2 <= 380 and 0 <= y1 < y2 <= 400


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2000, 3), (2000, 1, 3), (512, 512, 3)], ids=str)
@pytest.mark.parametrize("tiles", [False, True])
def test_detect_in_black_finds_nothing(shape, tiles):
    assert CenterFaceDetector.load(FILE, tiles=tiles).detect(np.zeros(shape, np.uint8)) == []


def test_tiles_find_a_crowds_faces():
    people = cv2.imread(str(EXAMPLES / "people.jpg"))
    height, width = 64, 120  # faces of 16 to 22 px
    crowd = np.tile(cv2.resize(people, (width, height), interpolation=cv2.INTER_AREA), (10, 6, 1))
    whole = len(CenterFaceDetector.load(FILE, 384).detect(crowd))
    tiled = len(CenterFaceDetector.load(FILE, 384, tiles=True).detect(crowd))
    assert whole < tiled
    assert 0.7 * 8 * 60 < tiled < 1.1 * 8 * 60


def network_runs(image: np.ndarray, monkeypatch, size: int | None = None, **settings) -> list[tuple]:
    """Detect faces; returns the number of images and the longest side in px of each run of the network."""
    runs, infer = [], CenterFaceDetector.infer

    def record(self, images, confidence):
        runs.append((len(images), max(images[0].shape[:2])))
        return infer(self, images, confidence)

    with monkeypatch.context() as patch:
        patch.setattr(CenterFaceDetector, "infer", record)
        CenterFaceDetector.load(FILE, **settings).detect(image, size=size)
    return runs


@pytest.mark.parametrize(
    ("size", "sides"), [(1024, [1024, 384, 144]), (512, [512, 192]), (256, [256])], ids=["large", "default", "small"]
)
def test_detect_infers_downscaled_images(monkeypatch, size, sides):
    """The size of the call is the one that counts, whatever the detector's own is."""
    people = cv2.imread(str(EXAMPLES / "people.jpg"))
    assert network_runs(people, monkeypatch, size) == [(1, side) for side in sides]
    loaded = CenterFaceDetector.load(FILE, size)
    assert loaded.size == size and loaded.detect(people) == CenterFaceDetector.load(FILE).detect(people, size=size)


def test_large_face_is_found_downscaled(astronaut):
    face = astronaut[55:185, 135:245]  # fills the image
    assert len(CenterFaceDetector.load(FILE, 1024).detect(face)) == 1


def test_large_faces_are_not_inferred_in_tiles(monkeypatch):
    people = cv2.imread(str(EXAMPLES / "people.jpg"))
    assert network_runs(people, monkeypatch, tiles=True) == network_runs(people, monkeypatch)


NO_FACES = [(np.empty((0, 4)), np.empty(0))]


class FakeNetwork:
    """A network whose every call gives the same face heights in px, far apart, by the longest side of its input."""

    def __init__(self, heights: dict[int, list[float]], logit: float = 3.0) -> None:
        self.heights, self.logit = heights, logit
        self.calls: list[tuple[int, int, int]] = []  # images, height and width of each input

    def __call__(self, images: np.ndarray) -> np.ndarray:
        count, _, height, width = images.shape
        self.calls.append((count, height, width))
        heights = self.heights.get(max(height, width), [])
        faces = [(4, 8 + 12 * n, self.logit, 0, 0, px / 4, px / 4) for n, px in enumerate(heights)]
        return np.stack([output_with(*faces, rows=height // 4, columns=width // 4)] * count)

    def detector(self, size: int, tiles: bool = False) -> CenterFaceDetector:
        return CenterFaceDetector(self, PlattScaling(1.0, 0.0), size, tiles)


@pytest.mark.parametrize(("height", "count"), [(19.9, 0), (20.1, 1)])
def test_faces_of_20_px_are_found_downscaled(height, count):
    """Smaller ones come from the scale above."""
    network = FakeNetwork({192: [height]})
    faces = network.detector(512).detect(np.zeros((512, 512, 3), np.uint8))
    assert network.calls == [(1, 512, 512), (1, 192, 192)]
    assert [face.box[3] - face.box[1] for face in faces] == [pytest.approx(height / 0.375, abs=1.5)] * count


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [
        pytest.param(256, 107, [(1, 256, 448)], id="to three times its pixels"),
        pytest.param(254, 127, [], id="not to more"),
        pytest.param(512, 256, [(1, 256, 448)] * 2, id="twice, in one of four and in one of sixteen tiles"),
    ],
)  # fmt: skip
def test_tiles_with_small_faces_are_enlarged(width, height, tiles):
    """The faces are at the upper left. Tiles have 64 px more than their share, which is 384 x 161 px at first."""
    network = FakeNetwork({side: [12] * 3 for side in (384, 448)})
    network.detector(384, tiles=True).detect(np.zeros((height, width, 3), np.uint8))
    assert network.calls[1:-1] == tiles


def test_a_call_of_the_network_gets_four_tiles():
    network = FakeNetwork({})
    detector = network.detector(512, tiles=True)
    boxes = np.array([(x, y, x + 8, y + 8) for x in range(2, 500, 20) for y in range(2, 500, 20)], float)
    detector.infer_tiles(np.zeros((512, 512, 3), np.uint8), 0.74, boxes, np.full(len(boxes), 0.9), 0.5)
    assert [count for count, _, _ in network.calls] == [4]
    detector.infer_tiles(np.zeros((512, 512, 3), np.uint8), 0.4, boxes * 0.8, np.full(len(boxes), 0.9), 0.5)
    assert [count for count, _, _ in network.calls] == [4, 4]


@pytest.mark.parametrize(
    ("height", "scores", "is_enlarged"),
    [
        pytest.param(15.9, [0.401], True, id="one small face of 0.401"),
        pytest.param(15.9, [0.399], False, id="of 0.399"),
        pytest.param(16.1, [0.9], False, id="a larger one"),
        pytest.param(15.9, [0.101] * 4, True, id="four of 0.101"),
        pytest.param(15.9, [0.099] * 4, False, id="four of 0.099"),
    ],
)
def test_tiles_where_small_faces_are_expected(height, scores, is_enlarged):
    network = FakeNetwork({})
    boxes = np.array([(20 * n, 0, 20 * n + 12, height) for n in range(len(scores))])
    network.detector(512, tiles=True).infer_tiles(np.zeros((512, 512, 3), np.uint8), 1.0, boxes, np.array(scores), 0.5)
    assert network.calls == [(1, 576, 576)] * is_enlarged


def test_faces_of_little_confidence_count_as_expected(monkeypatch):
    """Whatever confidence is asked for, those from 0.02 on are counted."""
    asked = []
    monkeypatch.setattr(CenterFaceDetector, "infer", lambda self, images, confidence: asked.append(confidence) or NO_FACES)
    FakeNetwork({}).detector(256, tiles=True).detect(np.zeros((256, 256, 3), np.uint8), 0.5)
    assert asked == [0.02]


def test_tiles_replace_the_small_faces_that_they_show_and_keep_others():
    """The enlarged tile shows no face: what was found in it goes, what was found elsewhere, or is larger, stays."""
    detector = FakeNetwork({}).detector(512, tiles=True)
    boxes = np.array([(10, 10, 20, 20), (480, 480, 490, 490), (30, 30, 60, 60)], float)
    scores = np.array([0.9, 0.3, 0.9])
    kept, _ = detector.infer_tiles(np.zeros((512, 512, 3), np.uint8), 1.0, boxes, scores, 0.5)
    assert kept.tolist() == boxes[1:].tolist()


def test_each_small_face_is_whole_in_a_tile():
    side = round(CenterFaceDetector.MAX_SMALL_FACE * CenterFaceDetector.ZOOM * 1.2)
    parts = tile_windows((8, 1001), 4, CenterFaceDetector.TILE_OVERLAP)[:, ::2].tolist()
    assert all(any(left <= x and x + side <= right for left, right in parts) for x in range(1001 - side + 1))


@pytest.mark.parametrize(
    ("size", "count", "tile", "corners"),
    [
        pytest.param((100, 200), 2, (60, 110), [(0, 0), (90, 0), (0, 40), (90, 40)], id="two by two"),
        pytest.param((8, 200), 2, (8, 110), [(0, 0), (90, 0), (0, 0), (90, 0)], id="low"),
        pytest.param((100, 100), 1, (100, 100), [(0, 0)], id="one"),
        pytest.param((101, 99), 3, (44, 43), [(0, 0), (28, 0), (56, 0), (0, 28), (28, 28), (56, 28), (0, 57), (28, 57), (56, 57)], id="nine"),
    ],
)  # fmt: skip
def test_tile_windows(size, count, tile, corners):
    assert tile_windows(size, count, 10).tolist() == [[x, y, x + tile[1], y + tile[0]] for x, y in corners]


def test_load_truncated(tmp_path):
    whole = FILE.read_bytes()
    path = tmp_path / "half.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as error:
        CenterFaceDetector.load(path)
    assert str(error.value) == f"{path}: {CORRUPT}"


def test_detect_keeps_max_faces(detector):
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    whole = detector.detect(image)
    assert CenterFaceDetector.load(FILE, max_faces=3).detect(image) == whole[:3]
    assert len(whole) == 8
