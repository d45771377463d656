"""The times in a report: of detection and of the classifier alone, reading not counted."""

import json
import time

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("pycocotools")

import evaluate_mask_detector  # noqa: E402
from facemask.detector import MaskDetector  # noqa: E402
from facemask.evaluation import metrics, plots  # noqa: E402
from facemask.evaluation.metrics import evaluate_photo  # noqa: E402
from facemask.evaluation.report import report  # noqa: E402
from facemask.models.mask_classifier import MaskClassifier  # noqa: E402
from facemask.models.model_info import ModelInfo  # noqa: E402
from facemask.training.dataset import AnnotatedPhoto  # noqa: E402
from facemask.types import Face  # noqa: E402
from tests.helpers import EXAMPLES  # noqa: E402

ASTRONAUT = EXAMPLES / "astronaut.jpg"
BOX = (142, 60, 237, 178)


class Clock:
    """A clock that stands still but where a step takes time."""

    def __init__(self) -> None:
        self.now = 100.0

    def slow(self, function, seconds: float):
        """Return the function, which takes so long by this clock."""

        def slowed(*arguments, **options):
            self.now += seconds
            return function(*arguments, **options)

        return slowed


class Faces:
    def detect(self, image, confidence):
        return [Face(BOX, 0.9)]


def test_times_are_of_detection_and_of_the_classifier_alone(monkeypatch):
    """Reading takes 8 s, finding faces 2 s, a call of the classifier 0.5 s."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(metrics, "read_image", clock.slow(metrics.read_image, 8.0))
    monkeypatch.setattr(Faces, "detect", clock.slow(Faces.detect, 2.0))
    classify = clock.slow(lambda images: np.full((len(images), 2), 0.5, np.float32), 0.5)
    detector = MaskDetector(Faces(), MaskClassifier(ModelInfo(("with_mask", "without_mask"), 96, 0.0), classify, "none"))
    truth = AnnotatedPhoto(ASTRONAUT, np.array([BOX, BOX], float), ("without_mask", "without_mask"))
    photo = evaluate_photo(detector, truth, 0.05)
    assert (photo.detect_seconds, photo.classify_seconds) == (2.5, 0.5)
    figures = report([photo], detector.classifier.info.classes, 0.5)
    assert figures["milliseconds_a_photo_median"] == 2500 and figures["milliseconds_a_face"] == 250


def test_report_of_the_script_has_times(tmp_path, monkeypatch, capsys):
    for name in ("plot_mistakes", "plot_precision_recall", "plot_reliability"):  # slow, and nothing to do with it
        monkeypatch.setattr(plots, name, lambda *_, **__: None)
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    assert cv2.imwrite(str(tmp_path / "images/a.png"), cv2.imread(str(ASTRONAUT)))
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>".format(*BOX)
    annotation = f"<annotation><object><name>without_mask</name>{box}</object></annotation>"
    (tmp_path / "annotations/a.xml").write_text(annotation)
    output = tmp_path / "report"
    assert evaluate_mask_detector.main(["-d", str(tmp_path), "-o", str(output)]) == 0
    figures = json.loads((output / "report.json").read_text())
    photo, face = figures["milliseconds_a_photo_median"], figures["milliseconds_a_face"]
    assert photo > 0 and face > 0
    lines = capsys.readouterr().out.splitlines()
    assert f"| milliseconds a photo (median), reading not counted | {photo:.0f} |" in lines
    assert f"| milliseconds a face, classifier alone | {face:.1f} |" in lines
