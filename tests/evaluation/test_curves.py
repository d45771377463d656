"""The precision-recall curves hold faces below the confidence from which a face counts as found."""

import json
from pathlib import Path

import cv2
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

import evaluate_mask_detector  # noqa: E402
from facemask.evaluation import plots  # noqa: E402
from facemask.models.center_face import CenterFaceDetector  # noqa: E402
from tests.helpers import ROOT, uncertain_face  # noqa: E402

FLOAT32 = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME  # the same results on every processor

ANNOTATION = """<annotation><object><name>without_mask</name>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"""


@pytest.fixture
def photos(tmp_path) -> Path:
    """One photo of a face that is found with confidence 0.15 to 0.22."""
    image, face = uncertain_face()
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    assert cv2.imwrite(str(tmp_path / "images/a.png"), image)
    (tmp_path / "annotations/a.xml").write_text(ANNOTATION.format(*face.box))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "recall", "precision"),
    [
        pytest.param((), 0, 1, id="default, 0.05"),
        pytest.param(("--min-confidence", "0.3"), 0, 0, id="higher"),
        pytest.param(("-c", "0.14", "--min-confidence", "0.3"), 1, 1, id="higher than the one to be found"),
    ],
)
def test_average_precision_counts_faces_from_the_minimum_confidence_on(photos, monkeypatch, options, recall, precision):
    for name in ("plot_mistakes", "plot_precision_recall", "plot_reliability"):  # slow, and not needed
        monkeypatch.setattr(plots, name, lambda *_, **__: None)
    arguments = ["-d", str(photos), "-f", str(FLOAT32), "-o", str(photos / "report"), *options]
    assert evaluate_mask_detector.main(arguments) == 0
    (figures,) = json.loads((photos / "report/report.json").read_text())["sets"].values()
    assert figures["face_recall"] == recall
    assert figures["face_average_precision"] == pytest.approx(precision)
