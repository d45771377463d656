from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facemask.errors import InputError
from facemask.faces import Face, FaceDetector, clip_boxes, select_boxes
from tests.conftest import EXAMPLES, ROOT

# What the Caffe original gave on OpenCV 4.14.0 (readNetFromCaffe, forward): score, x1, y1, x2, y2 in fractions of the
# picture, its surest boxes. Some of the weak ones lie outside the picture.
CAFFE = {
    "astronaut.jpg": [
        (1.0000, 0.3737, 0.1497, 0.6245, 0.4439),
        (0.1232, 4.1582, 4.0048, 4.8416, 4.9830),
        (0.1201, 0.1558, 4.0073, 0.8378, 4.9864),
        (0.1187, 0.6541, 0.8441, 0.7614, 0.9437),
    ],
    "people.jpg": [
        (0.9987, 0.5670, 0.6336, 0.6838, 0.9209),
        (0.9976, 0.8236, 0.1083, 0.9333, 0.3541),
        (0.9928, 0.5382, 0.1227, 0.6919, 0.4825),
        (0.9833, 0.0532, 0.0864, 0.1938, 0.4101),
        (0.9804, 0.0711, 0.6784, 0.1752, 0.9229),
        (0.9721, 0.3107, 0.0691, 0.4225, 0.3893),
        (0.9563, 0.3037, 0.5941, 0.4415, 0.8610),
        (0.8839, 0.7971, 0.5638, 0.9379, 0.9048),
        (0.2702, 0.3401, 0.4859, 0.4323, 0.5732),
        (0.1651, 0.0950, 0.6092, 0.1788, 0.7043),
    ],
}


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.load(ROOT / "face_detector")


@pytest.mark.parametrize("name", CAFFE)
def test_network_equals_caffe_original(detector, name):
    boxes, scores = detector._forward(cv2.imread(str(EXAMPLES / name)))
    boxes, scores = select_boxes(boxes, scores, 0.01, 0.45, 400, 200)
    golden = np.array(CAFFE[name])
    np.testing.assert_allclose(scores[: len(golden)], golden[:, 0], atol=1e-3)
    np.testing.assert_allclose(boxes[: len(golden)], golden[:, 1:], atol=1e-3)


def test_detect_astronaut(detector, astronaut):
    (face,) = detector.detect(astronaut)
    assert face.box == (142, 60, 237, 178)
    assert face.confidence == pytest.approx(1.0, abs=1e-3)


def test_detect_low_confidence_stays_inside(detector, astronaut):
    faces = detector.detect(astronaut, 0.05)
    assert len(faces) > 50
    for x1, y1, x2, y2 in (face.box for face in faces):
        assert 0 <= x1 < x2 <= 380 and 0 <= y1 < y2 <= 400
    assert [face.confidence for face in faces] == sorted((face.confidence for face in faces), reverse=True)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2000, 3), (2000, 1, 3), (300, 300, 3)])
def test_detect_nothing_in_black(detector, shape):
    assert detector.detect(np.zeros(shape, np.uint8)) == []


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        pytest.param("none.onnx", None, "no such face detector; give -f the folder", id="missing"),
        pytest.param("empty.onnx", b"", "not a face detector that OpenCV can load", id="empty"),
        pytest.param("noise.onnx", b"\x17noise" * 999, "not a face detector that OpenCV can load", id="noise"),
        pytest.param("half.onnx", "half", "not a face detector that OpenCV can load", id="truncated"),
        pytest.param("mask_detector.onnx", "model", "not a face detector that OpenCV can load", id="another network"),
    ],
)
def test_load_bad_file(tmp_path: Path, name, data, message):
    path = tmp_path / name
    if data == "half":
        whole = (ROOT / "face_detector" / FaceDetector.FILE_NAME).read_bytes()
        data = whole[: len(whole) // 2]
    elif data == "model":
        data = (ROOT / "mask_detector.onnx").read_bytes()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        FaceDetector.load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_load_folder_without_detector(tmp_path):
    with pytest.raises(InputError, match=r"res10_300x300_ssd.onnx: no such face detector"):
        FaceDetector.load(tmp_path)


@pytest.mark.parametrize("shape", [(1, 67500, 4), (54000, 5)], ids=str)
def test_load_network_with_other_output_shapes(tmp_path, shape):
    path = tmp_path / "other.onnx"
    outputs = {"boxes": shape, "scores": (270000, 1)}
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["data", f"{name}_shape"], [name], name=name) for name in outputs],
        "other",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, (1, 3, 300, 300))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        [numpy_helper.from_array(np.array(size, np.int64), f"{name}_shape") for name, size in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(InputError) as error:
        FaceDetector.load(path)
    assert str(error.value) == f"{path}: not the res10 face detector (outputs {shape}, (270000,)); give -f its file"


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("boxes", "scores", "kept"),
    [
        pytest.param([], [], [], id="empty"),
        pytest.param([(0, 0, 10, 10)], [0.4], [], id="weak"),
        pytest.param([(0, 0, 10, 10)], [0.5], [0], id="at the limit"),
        pytest.param([(0, 0, 10, 10), (1, 0, 11, 10)], [0.6, 0.9], [1], id="overlapping"),
        pytest.param([(0, 0, 10, 10), (9, 0, 19, 10)], [0.6, 0.9], [1, 0], id="apart, strongest first"),
        pytest.param([(0, 0, NAN, 10), (0, 0, 10, 10)], [0.9, 0.8], [1], id="NaN box"),
        pytest.param([(0, 0, INF, 10), (0, 0, 10, 10)], [0.9, 0.8], [1], id="infinite box"),
        pytest.param([(0, 0, 10, 10)], [NAN], [], id="NaN score"),
    ],
)
def test_select_boxes(boxes, scores, kept):
    boxes, scores = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    got_boxes, got_scores = select_boxes(boxes, scores, 0.5, 0.45, 400, 200)
    np.testing.assert_array_equal(got_boxes, boxes[kept])
    np.testing.assert_array_equal(got_scores, scores[kept])


def test_select_boxes_keeps_at_most():
    boxes = np.array([(20 * i, 0, 20 * i + 10, 10) for i in range(5)], np.float32)
    scores = np.linspace(0.9, 0.6, 5, dtype=np.float32)
    assert len(select_boxes(boxes, scores, 0.5, 0.45, 400, 3)[0]) == 3
    assert len(select_boxes(boxes, scores, 0.5, 0.45, 2, 200)[0]) == 2


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        pytest.param((10, 20, 30, 40), (10, 20, 30, 40), id="inside"),
        pytest.param((-5.4, -1, 30, 40), (0, 0, 30, 40), id="left and top"),
        pytest.param((10, 20, 130, 90), (10, 20, 100, 80), id="right and bottom"),
        pytest.param((-9, -9, 900, 900), (0, 0, 100, 80), id="all round"),
        pytest.param((9.6, 19.4, 30.4, 40.6), (10, 19, 30, 41), id="rounded"),
        pytest.param((-20, 20, -1, 40), None, id="outside left"),
        pytest.param((100, 20, 120, 40), None, id="outside right"),
        pytest.param((10, 80, 30, 90), None, id="outside below"),
        pytest.param((10.1, 20, 10.4, 40), None, id="empty once rounded"),
        pytest.param((30, 20, 10, 40), None, id="corners swapped"),
    ],
)
def test_clip_boxes(box, clipped):
    boxes, kept = clip_boxes(np.array([box], float), 100, 80)
    assert boxes.tolist() == ([] if clipped is None else [list(clipped)])
    assert kept.tolist() == ([] if clipped is None else [0])


def test_clip_boxes_of_none():
    boxes, kept = clip_boxes(np.empty((0, 4)), 100, 80)
    assert boxes.shape == (0, 4) and kept.shape == (0,)


def test_face_is_frozen():
    with pytest.raises(AttributeError):
        Face((0, 0, 1, 1), 0.5).confidence = 1.0
