import cv2
import numpy as np
import pytest

from facemask.boxes import nms
from facemask.errors import InputError
from facemask.models.face_detectors import load_face_detector
from facemask.models.model_file import with_checksum
from facemask.models.res10 import Res10Detector
from tests.helpers import EXAMPLES, ROOT

FILE = ROOT / "face_detector" / Res10Detector.FILE_NAME
# The most confident boxes of the Caffe original on OpenCV 4.14.0 (readNetFromCaffe, forward): score, x1, y1, x2, y2 in
# fractions of the image. Some of the weak ones lie outside the image.
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
def detector() -> Res10Detector:
    return load_face_detector(FILE)


@pytest.mark.parametrize("name", CAFFE)
def test_network_equals_caffe_original(detector, name):
    boxes, scores = detector.infer(detector.preprocess(cv2.imread(str(EXAMPLES / name))))
    boxes, scores = nms(boxes, scores, 0.01, 0.45, 400, 200)
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
def test_detect_in_black_finds_nothing(detector, shape):
    assert detector.detect(np.zeros(shape, np.uint8)) == []


def test_load_another_network(tmp_path):
    path = tmp_path / "other.onnx"
    model = bytearray(FILE.read_bytes()[: -len(with_checksum(b""))])
    model[len(model) // 2] ^= 1
    path.write_bytes(with_checksum(bytes(model)))
    with pytest.raises(InputError) as error:
        load_face_detector(path)
    assert str(error.value) == f"{path}: not a face detector of this project; give -f the folder face_detector/"


def test_detect_keeps_max_faces():
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    one, whole = (Res10Detector.load(FILE, count).detect(image) for count in (1, 999))
    assert one == whole[:1] and len(whole) > 1
