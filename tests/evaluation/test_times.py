"""The times in a report: from a photo's file to its faces, and of the classifier alone."""

import json
import time

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

import evaluate_mask_detector  # noqa: E402
from facemask import detector as detector_module  # noqa: E402
from facemask.detector import MaskDetector  # noqa: E402
from facemask.evaluation import metrics, plots  # noqa: E402
from facemask.evaluation.metrics import evaluate_photo  # noqa: E402
from facemask.evaluation.report import annotated_metrics  # noqa: E402
from facemask.models.mask_classifier import MaskClassifier  # noqa: E402
from facemask.models.model_info import ModelInfo  # noqa: E402
from facemask.training.dataset import AnnotatedPhoto  # noqa: E402
from facemask.types import Face  # noqa: E402
from tests.helpers import EXAMPLES  # noqa: E402

ASTRONAUT = EXAMPLES / "astronaut.jpg"
BOX = (142, 60, 237, 178)


class Clock:
    """A clock that advances in slow functions alone."""

    def __init__(self) -> None:
        self.now = 100.0

    def slow(self, function, seconds: float):
        """Return the function, which takes so long by this clock."""

        def slowed(*arguments, **options):
            self.now += seconds
            return function(*arguments, **options)

        return slowed


class Faces:
    size, max_faces, name = 512, 1000, "faces"

    def detect(self, image, confidence=0.5, size=None):
        return [Face(BOX, 0.9)]


def test_times_are_from_file_to_faces_and_of_the_classifier_alone(monkeypatch):
    """Reading the file takes 8 s, detecting faces 2 s, a call of the classifier 0.5 s; reading it once more does not count."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(detector_module.EncodedImage, "read", clock.slow(detector_module.EncodedImage.read, 8.0))
    monkeypatch.setattr(metrics, "read_image", clock.slow(metrics.read_image, 100.0))
    monkeypatch.setattr(Faces, "detect", clock.slow(Faces.detect, 2.0))
    classify = clock.slow(lambda images: np.full((len(images), 2), 0.5, np.float32), 0.5)
    info = ModelInfo(("with_mask", "without_mask"), 96, 0.0)
    detector = MaskDetector(Faces(), MaskClassifier(info, classify, "none"))
    truth = AnnotatedPhoto(ASTRONAUT, np.array([BOX, BOX], float), ("without_mask", "without_mask"))
    photo = evaluate_photo(detector, truth, 0.05)
    assert (photo.detect_seconds, photo.classify_seconds) == (10.5, 0.5)
    figures = annotated_metrics([photo], info.labels, 0.5)
    assert (figures["median_milliseconds_per_photo"], figures["milliseconds_per_face"]) == (10_500, 250)


def test_report_of_the_script_has_times(tmp_path, monkeypatch, capsys):
    for name in ("plot_mistakes", "plot_precision_recall", "plot_reliability"):  # slow, and not needed
        monkeypatch.setattr(plots, name, lambda *_, **__: None)
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    assert cv2.imwrite(str(tmp_path / "images/a.png"), cv2.imread(str(ASTRONAUT)))
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>".format(*BOX)
    annotation = f"<annotation><object><name>without_mask</name>{box}</object></annotation>"
    (tmp_path / "annotations/a.xml").write_text(annotation)
    output = tmp_path / "report"
    assert evaluate_mask_detector.main(["-d", str(tmp_path), "-o", str(output)]) == 0
    (figures,) = json.loads((output / "report.json").read_text())["sets"].values()
    photo, face = figures["median_milliseconds_per_photo"], figures["milliseconds_per_face"]
    assert photo > 0 and face > 0
    lines = capsys.readouterr().out.splitlines()
    assert f"| milliseconds per photo (median), reading included | {photo:.0f} |" in lines
    assert f"| milliseconds per face, classifier alone | {face:.1f} |" in lines
