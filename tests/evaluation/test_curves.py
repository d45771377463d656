"""The precision-recall curves hold faces below the confidence from which a face counts as found."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

import evaluate_mask_detector  # noqa: E402
from facemask.evaluation import plots  # noqa: E402

ANNOTATION = (
    "<annotation><object><name>without_mask</name><bndbox>"
    "<xmin>0</xmin><ymin>78</ymin><xmax>31</xmax><ymax>155</ymax></bndbox></object></annotation>"
)


@pytest.fixture
def photos(tmp_path, astronaut) -> Path:
    """One photo of half a face at the left edge, which is found with confidence 0.2."""
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    assert cv2.imwrite(str(tmp_path / "images/a.png"), np.ascontiguousarray(astronaut[:, 210:]))
    (tmp_path / "annotations/a.xml").write_text(ANNOTATION)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "recall", "precision"),
    [
        pytest.param((), 0, 1, id="default, 0.05"),
        pytest.param(("--min-confidence", "0.3"), 0, 0, id="higher"),
        pytest.param(("-c", "0.15", "--min-confidence", "0.3"), 1, 1, id="higher than the one to be found"),
    ],
)
def test_average_precision_counts_faces_from_the_least_confidence_on(photos, monkeypatch, options, recall, precision):
    for name in ("plot_mistakes", "plot_precision_recall", "plot_reliability"):  # slow, and not needed
        monkeypatch.setattr(plots, name, lambda *_, **__: None)
    assert evaluate_mask_detector.main(["-d", str(photos), "-o", str(photos / "report"), *options]) == 0
    (figures,) = json.loads((photos / "report/report.json").read_text())["sets"].values()
    assert figures["face_recall"] == recall
    assert figures["face_average_precision"] == pytest.approx(precision)
