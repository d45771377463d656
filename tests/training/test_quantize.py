"""The mask classifier with 8-bit integers, training/quantize.py."""

import shutil

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("onnx")
pytest.importorskip("keras")

from facemask.models import int8  # noqa: E402
from facemask.models.mask_classifier import MaskClassifier  # noqa: E402
from facemask.models.model_file import ModelFile  # noqa: E402
from facemask.training.crops import Crop, FacePatch  # noqa: E402
from facemask.training.quantize import write_int8_classifier  # noqa: E402
from tests.helpers import EXAMPLES, PEOPLE, ROOT  # noqa: E402


@pytest.mark.skipif(not int8.runs_int8(), reason="sums of 8-bit integers saturate on this processor")
def test_int8_classifier_takes_the_place_of_its_float32_file(tmp_path, caplog, monkeypatch):
    for suffix in (".keras", ".onnx"):
        shutil.copy(ROOT / f"mask_detector{suffix}", tmp_path)
    file = tmp_path / "mask_detector.onnx"
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    original = MaskClassifier.load(file)
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    crops = [Crop(FacePatch(rgb, box), "with_mask", EXAMPLES / "people.jpg", number) for number, box in enumerate(PEOPLE)]
    output = write_int8_classifier(file, crops, original.info, seed=1)
    assert output == tmp_path / "mask_detector.int8.onnx"
    assert output.stat().st_size < file.stat().st_size / 3
    expected, found = (
        original.classify(image, PEOPLE),
        MaskClassifier.load(tmp_path / "mask_detector.keras").classify(image, PEOPLE),
    )
    assert not np.array_equal(found, expected)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(found, expected, atol=0.3)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(int8, "runs_int8", lambda: False)
        np.testing.assert_array_equal(MaskClassifier.load(file).classify(image, PEOPLE), expected)
    assert not caplog.records
    shutil.copy(ROOT / "face_detector" / "masked_faces_ssd.onnx", output)
    np.testing.assert_array_equal(MaskClassifier.load(file).classify(image, PEOPLE), expected)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{output}: not used, because it was not made from mask_detector.onnx; "
        "train_mask_detector.py makes it again; until then remove it"
    )


def test_an_int8_file_of_another_model_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "runs_int8", lambda: True)
    file = tmp_path / "a.onnx"
    shutil.copy(ROOT / "mask_detector.onnx", file)
    model = ModelFile.read(file)
    assert int8.prefer_int8(model, "remedy") is model
