import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemask.cli import options
from facemask.detector import MIN_REDUCED_FACE, MaskDetector, enlarge, verification
from facemask.errors import InputError
from facemask.io.images import EncodedImage, read_image
from facemask.models.center_face import CenterFaceDetector
from facemask.models.face_detectors import load_face_detector
from facemask.models.mask_classifier import MaskClassifier
from facemask.models.model_file import with_checksum
from facemask.models.model_info import METADATA_NAME, ModelInfo
from facemask.types import Detection, Face, FileResult
from tests.helpers import EXAMPLES, PEOPLE, ROOT

INFO = ModelInfo(("with_mask", "without_mask"), 32, 0.0)
FLOAT32 = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME  # the same results on every processor


class FakeFaces:
    """Finds the same faces in every image, and records the shape of each and the size it was asked for."""

    name, size, max_faces = "fake", 512, 1000

    def __init__(self, *faces: Face) -> None:
        self.faces, self.calls = list(faces), []

    def detect(self, image, confidence=0.5, size=None):
        self.calls.append((image.shape[:2], size))
        return [face for face in self.faces if face.confidence >= confidence]


def run_bright_is_masked(images):
    masked = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([masked, 1 - masked], axis=1)


def fake_detector(*faces: Face) -> MaskDetector:
    return MaskDetector(FakeFaces(*faces), MaskClassifier(INFO, run_bright_is_masked, "fake"))


@pytest.fixture(scope="module")
def detector() -> MaskDetector:
    return MaskDetector(load_face_detector(FLOAT32, tiles=True), MaskClassifier.load(options.DEFAULT_MODEL))


def write_enlarged(path: Path, factor: float) -> Path:
    """Write examples/people.jpg enlarged."""
    assert cv2.imwrite(str(path), cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), None, fx=factor, fy=factor))
    return path


def test_detect_labels_each_face():
    image = np.zeros((100, 100, 3), np.uint8)
    image[:50] = 255
    faces = Face((0, 0, 40, 40), 0.9), Face((0, 60, 40, 100), 0.7), Face((0, 0, 9, 9), 0.2)
    assert fake_detector(*faces).detect(image) == [
        Detection((0, 0, 40, 40), 0.9, "with_mask", 1.0, {"with_mask": 1.0, "without_mask": 0.0}),
        Detection((0, 60, 40, 100), 0.7, "without_mask", 1.0, {"with_mask": 0.0, "without_mask": 1.0}),
    ]


def test_detect_without_faces_skips_the_classifier():
    def run(images):
        raise AssertionError("the classifier was called")

    assert MaskDetector(FakeFaces(), MaskClassifier(INFO, run, "fake")).detect(np.zeros((9, 9, 3), np.uint8)) == []


def test_detect_passes_the_size_on():
    detector = fake_detector()
    for size in (None, 1024):
        detector.detect(np.zeros((30, 40, 3), np.uint8), size=size)
    assert detector.faces.calls == [((30, 40), None), ((30, 40), 1024)]


def test_threads_at_once_detect_each_at_its_own_size(detector, monkeypatch):
    """Each call keeps its size, whatever another thread asks for at the same moment."""
    image, sizes = read_image(EXAMPLES / "people.jpg"), (256, 512, 1024)
    expected = [detector.detect(image, size=size) for size in sizes]
    assert len({str(detections) for detections in expected}) == len(sizes)
    together, preprocess = threading.Barrier(len(sizes), timeout=60), CenterFaceDetector.preprocess
    first = threading.local()

    def wait_for_the_others(self, images):
        if not hasattr(first, "done"):
            first.done = together.wait()  # every thread is inside `detect`, its size given
        return preprocess(self, images)

    monkeypatch.setattr(CenterFaceDetector, "preprocess", wait_for_the_others)
    with ThreadPoolExecutor(len(sizes)) as pool:
        assert list(pool.map(lambda size: detector.detect(image, size=size), sizes)) == expected


def test_detector_settings_cannot_be_written(detector):
    for target, name in ((detector, "faces"), (detector.faces, "size"), (detector.faces, "tiles")):
        with pytest.raises(AttributeError):
            setattr(target, name, None)


BACKGROUND_CLASSES = ("with_mask", "background", "without_mask")
SHARPNESS = 8  # logit of a colour at its brightest


def write_colour_classifier(path: Path, classes: tuple[str, ...]) -> Path:
    """Write a real network: the redder, greener or bluer a crop, the more probable the first, second or third class."""
    onnx = pytest.importorskip("onnx")
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        make.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        make.make_node("Flatten", ["pooled"], ["colour"]),
        make.make_node("Gemm", ["colour", "weights"], ["logits"]),
        make.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32) * SHARPNESS / 255, "weights")
    inputs = [make.make_tensor_value_info("images", floats, ["n", 3, 32, 32])]
    outputs = [make.make_tensor_value_info("probabilities", floats, ["n", 3])]
    graph = make.make_graph(nodes, "colours", inputs, outputs, [weights])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    onnx.helper.set_model_props(model, {METADATA_NAME: ModelInfo(classes, 32, 0.0).to_json()})
    path.write_bytes(with_checksum(model.SerializeToString()))
    return path


def colour_probabilities(red: float, green: float, blue: float) -> np.ndarray:
    """Return what `write_colour_classifier`'s network gives for a colour, 0..1 each."""
    exponentials = np.exp(SHARPNESS * np.array([red, green, blue]))
    return exponentials / exponentials.sum()


RED, GREEN, BLUE, MIXED = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)
COLOUR_FACES = [
    Face((0, 0, 20, 20), 0.97),  # mixed: half a mask, half background
    Face((20, 0, 40, 20), 0.95),  # green: background
    Face((40, 0, 60, 20), 0.9),  # red
    Face((60, 0, 80, 20), 0.6),  # blue
]


@pytest.fixture
def colours() -> np.ndarray:
    image = np.zeros((20, 80, 3), np.uint8)
    for face, (red, green, blue) in zip(COLOUR_FACES, (MIXED, GREEN, RED, BLUE), strict=True):
        image[:, face.box[0] : face.box[2]] = (255 * blue, 255 * green, 255 * red)
    return image


def test_detect_with_a_background_class(tmp_path, colours):
    """Crops that show no face are dropped; the others lose confidence, and their labels' probabilities sum to 1."""
    classifier = MaskClassifier.load(write_colour_classifier(tmp_path / "m.onnx", BACKGROUND_CLASSES))
    assert classifier.info.labels == ("with_mask", "without_mask")
    detector = MaskDetector(FakeFaces(*COLOUR_FACES), classifier)
    detections = detector.detect(colours, 0.35)  # 0.95 x 0.36 is too little
    assert [detection.box[0] for detection in detections] == [40, 0, 60]  # most confident first
    assert [detection.label for detection in detections] == ["with_mask", "with_mask", "without_mask"]
    for detection, colour, confidence in zip(detections, (RED, MIXED, BLUE), (0.9, 0.97, 0.6), strict=True):
        with_mask, background, without_mask = colour_probabilities(*colour)
        assert detection.confidence == pytest.approx(confidence * (1 - 0.64 * background), abs=1e-5)  # 20 px
        assert list(detection.probabilities) == ["with_mask", "without_mask"]
        assert detection.probabilities["with_mask"] == pytest.approx(with_mask / (with_mask + without_mask), abs=1e-5)
        assert sum(detection.probabilities.values()) == pytest.approx(1)
        assert detection.probability == max(detection.probabilities.values())
    assert [detection.box[0] for detection in detector.detect(colours, 0.67)] == [40]  # 0.97 x 0.68 is too little
    assert len(detector.detect(colours, 0.0)) == 4


def test_verification_trusts_the_classifier_more_in_larger_faces():
    boxes = [(0, 0, 4, 8), (0, 0, 20, 10), (0, 0, 32, 30), (5, 5, 205, 205)]
    np.testing.assert_allclose(verification(np.zeros(4), boxes), [0.7, 0.36, 0.02, 0.02])
    np.testing.assert_allclose(verification(np.array([0.5, 1.0, 0.9, 0.5]), boxes), [0.85, 1, 0.902, 0.51])
    assert verification(np.empty(0), []).shape == (0,)


def test_detect_file_with_a_background_class(tmp_path, colours):
    assert cv2.imwrite(str(tmp_path / "a.png"), colours)
    classifier = MaskClassifier.load(write_colour_classifier(tmp_path / "m.onnx", BACKGROUND_CLASSES))
    detector = MaskDetector(FakeFaces(*COLOUR_FACES), classifier)
    assert detector.detect_file(tmp_path / "a.png", 0.5).detections == detector.detect(colours, 0.5)


def test_detect_without_a_background_class(tmp_path, colours):
    """The same network, none of its classes being the background: no face is dropped, no confidence changes."""
    classifier = MaskClassifier.load(write_colour_classifier(tmp_path / "m.onnx", ("a", "b", "c")))
    detections = MaskDetector(FakeFaces(*COLOUR_FACES), classifier).detect(colours)
    assert [Face(detection.box, detection.confidence) for detection in detections] == COLOUR_FACES
    assert [list(detection.probabilities) for detection in detections] == [["a", "b", "c"]] * 4


def test_detect_file_equals_detect(detector):
    path = EXAMPLES / "people.jpg"
    image = read_image(path)
    result = detector.detect_file(path, 0.3, keep_image=True)
    np.testing.assert_array_equal(result.image, image)
    assert (result.width, result.height, result.is_truncated) == (1218, 640, False)
    assert result.detections == detector.detect(image, 0.3) and len(result.detections) >= 8


@pytest.mark.parametrize("keep_image", [False, True])
def test_detect_file_decodes_a_large_jpeg_reduced(detector, tmp_path, keep_image):
    """The faces are those of the image at half its sides, in px of the whole image."""
    path = write_enlarged(tmp_path / "a.jpg", 3.2)
    encoded = EncodedImage.read(path)
    result = detector.detect_file(path, keep_image=keep_image)
    assert (result.width, result.height) == (encoded.width, encoded.height) == (3898, 2048)
    assert result.detections == enlarge(detector.detect(encoded.decode(2)), 2, 3898, 2048)
    boxes = sorted((face.box for face in result.detections), key=lambda box: (box[1] > 3.2 * 330, box[0]))
    np.testing.assert_allclose(np.array(boxes) / 3.2, PEOPLE, atol=20)
    if keep_image:
        np.testing.assert_array_equal(result.image, encoded.decode())
    else:
        assert result.image is None


@pytest.mark.parametrize(
    ("height", "size", "shapes"),
    [
        pytest.param(MIN_REDUCED_FACE, None, [(1000, 2000)], id="high enough"),
        pytest.param(MIN_REDUCED_FACE - 1, None, [(1000, 2000), (2000, 4000)], id="a small face"),
        pytest.param(MIN_REDUCED_FACE, 2048, [(2000, 4000)], id="at a size that needs the whole image"),
        pytest.param(MIN_REDUCED_FACE, 2000, [(1000, 2000)], id="at a size that does not"),
    ],
)
def test_detect_file_decodes_the_whole_image_for_small_faces(tmp_path, height, size, shapes):
    path = tmp_path / "a.jpg"
    assert cv2.imwrite(str(path), np.zeros((2000, 4000, 3), np.uint8))
    detector = fake_detector(Face((100, 100, 140, 100 + height), 0.9))
    result = detector.detect_file(path, size=size)
    assert detector.faces.calls == [(shape, size) for shape in shapes]
    factor = 4000 // shapes[-1][1]
    assert [face.box for face in result.detections] == [tuple(factor * side for side in (100, 100, 140, 100 + height))]


def test_detect_file_keeps_max_faces():
    faces = load_face_detector(FLOAT32, max_faces=3)
    detector = MaskDetector(faces, MaskClassifier.load(options.DEFAULT_MODEL))
    result = detector.detect_file(EXAMPLES / "people.jpg")
    assert len(result.detections) == 3 and result.is_truncated
    assert detector.detect_file(EXAMPLES / "astronaut.jpg").is_truncated is False


def test_detect_file_of_no_face(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    assert fake_detector().detect_file(tmp_path / "a.png") == FileResult(30, 20, [], False, None, [])


def test_detect_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        fake_detector().detect_file(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="380 x 400 pixels are more than 1000"):
        fake_detector().detect_file(EXAMPLES / "astronaut.jpg", max_pixels=1000)


def test_enlarge():
    small = Detection((1, 2, 50, 34), 0.9, "with_mask", 0.8, {"with_mask": 0.8, "without_mask": 0.2})
    assert enlarge([small], 2, 99, 67) == [Detection((2, 4, 99, 67), 0.9, "with_mask", 0.8, small.probabilities)]
    assert enlarge([], 2, 99, 67) == []
