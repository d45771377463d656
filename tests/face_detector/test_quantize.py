"""The face detector with 8-bit integers, face_detector/quantize.py."""

import shutil

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from face_detector import quantize  # noqa: E402
from facemask.models.center_face import CenterFaceDetector  # noqa: E402
from facemask.models.int8 import SOURCE_NAME, int8_file, runs_int8  # noqa: E402
from facemask.models.model_file import CHECKSUM_NAME, read_onnx_metadata, sha256  # noqa: E402
from facemask.training.quantize import equalize  # noqa: E402
from tests.helpers import EXAMPLES, PEOPLE, ROOT  # noqa: E402

FILE = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME
VOC = "<annotation><object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"


needs_int8 = pytest.mark.skipif(not runs_int8(), reason="onnxruntime cuts sums of 8-bit integers on this processor")


def outputs(model, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def test_equalize_changes_weights_and_no_output():
    inputs = quantize.record_inputs(FILE, [EXAMPLES / "astronaut.jpg"])
    before, after = onnx.load(FILE), onnx.load(FILE)
    equalize(after, inputs)
    weights = [onnx.numpy_helper.to_array(model.graph.initializer[0]) for model in (before, after)]
    assert not np.allclose(*weights)
    np.testing.assert_allclose(outputs(after, inputs[0]), outputs(before, inputs[0]), atol=2e-3)


def test_record_inputs_gives_what_the_network_is_given(astronaut):
    seen = quantize.record_inputs(FILE, [EXAMPLES / "astronaut.jpg"])
    assert [images.shape for images in seen] == [(1, 3, 576, 544), (1, 3, 224, 192)]
    assert seen[0].min() >= 0 and 200 < seen[0].max() <= 255


@needs_int8
def test_quantize(tmp_path, capsys):
    for folder in ("photos/images", "photos/annotations"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("people", "astronaut"):
        shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path / "photos/images")
        (tmp_path / f"photos/annotations/{name}.xml").write_text(VOC)
    file = tmp_path / "faces.onnx"
    shutil.copy(FILE, file)
    assert quantize.main(["-d", str(tmp_path / "photos"), "-f", str(file)]) == 0
    output = tmp_path / "faces.int8.onnx"
    assert f"[INFO] saved to {output}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.int8.onnx", "faces.onnx", "photos"]
    assert output.stat().st_size < file.stat().st_size / 2
    check_metadata(output, file)
    faces = CenterFaceDetector.load(output).detect(cv2.imread(str(EXAMPLES / "people.jpg")))
    found = sorted((face.box for face in faces), key=lambda box: (box[1] > 330, box[0]))
    np.testing.assert_allclose(found, PEOPLE, atol=20)


def check_metadata(made, source):
    """The metadata of the file in float32, which it was made from, and that file's hash; and a checksum of its own."""
    metadata, before = (read_onnx_metadata(file.read_bytes()) for file in (made, source))
    assert metadata.pop(CHECKSUM_NAME) != before.pop(CHECKSUM_NAME)
    assert metadata == before | {SOURCE_NAME: sha256(source)}


def test_shipped_file_is_of_the_shipped_detector():
    check_metadata(int8_file(FILE), FILE)


@needs_int8
def test_shipped_file_sees_what_the_shipped_detector_sees():
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    found = [sorted(CenterFaceDetector.load(file).detect(image), key=lambda face: face.box) for file in (FILE, int8_file(FILE))]
    np.testing.assert_allclose([face.box for face in found[0]], [face.box for face in found[1]], atol=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-f", "none.onnx"], "error: none.onnx: no such .onnx file; give -f the face detector", id="no detector"),
        pytest.param(["-f", "model.onnx"], "error: model.onnx: not this face detector", id="another network"),
        pytest.param(["-d", "none"], "error: none: no such folder", id="no photos"),
    ],
)
def test_quantize_bad_input(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos/images", "photos/annotations"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(EXAMPLES / "astronaut.jpg", "photos/images")
    (tmp_path / "photos/annotations/astronaut.xml").write_text(VOC)
    shutil.copy(ROOT / "mask_detector.onnx", "model.onnx")
    shutil.copy(FILE, "faces.onnx")
    assert quantize.main(["-d", "photos", "-f", "faces.onnx", *arguments]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.onnx", "model.onnx", "photos"]
