"""Calibration of the face detector on several sets of photos, face_detector/calibrate.py."""

import shutil

import numpy as np
import pytest

from face_detector import calibrate
from facemask.cli.run import DONE, FAILED
from facemask.models.center_face import CenterFaceDetector
from facemask.training.dataset import AnnotatedPhoto
from facemask.types import Face
from tests.helpers import EXAMPLES, PEOPLE, ROOT

pytest.importorskip("sklearn")
pytest.importorskip("onnx")
pytestmark = pytest.mark.training

SHIPPED = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME
OBJECT = "<object><name>face</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def sets(tmp_path):
    """A file to calibrate, an annotated set with the eight faces of people.jpg, and a set without faces (in truth, with them)."""
    for part in ("people/images", "people/annotations", "nofaces"):
        (tmp_path / part).mkdir(parents=True)
    shutil.copy(EXAMPLES / "people.jpg", tmp_path / "people" / "images")
    shutil.copy(EXAMPLES / "astronaut.jpg", tmp_path / "nofaces")
    objects = "".join(OBJECT.format(*box) for box in PEOPLE)
    (tmp_path / "people" / "annotations" / "people.xml").write_text(f"<annotation>{objects}</annotation>")
    shutil.copy(SHIPPED, tmp_path / "a.onnx")
    return tmp_path


def run(sets, *names: str) -> int:
    return calibrate.main(
        ["-f", str(sets / "a.onnx"), "-d", *(str(sets / name) for name in names), "--complete", str(sets / "people")]
    )


def confidence(file, image) -> float:
    return CenterFaceDetector.load(file).detect(image, 0.0)[0].confidence


def test_false_positives_of_every_set_lower_the_confidence(sets, astronaut):
    assert run(sets, "people") == DONE
    alone = confidence(sets / "a.onnx", astronaut)
    assert run(sets, "people", "nofaces") == DONE
    assert confidence(sets / "a.onnx", astronaut) < alone - 0.05


def test_calibration_changes_nothing_but_the_scaling(sets, astronaut):
    assert run(sets, "people", "nofaces") == DONE
    before, after = (CenterFaceDetector.load(file).detect(astronaut, 0.0) for file in (SHIPPED, sets / "a.onnx"))
    assert [face.box for face in after[:1]] == [face.box for face in before[:1]]
    assert after[0].confidence != before[0].confidence


def test_class_folders_cannot_calibrate(sets, capsys):
    (sets / "classes" / "face").mkdir(parents=True)
    shutil.copy(EXAMPLES / "astronaut.jpg", sets / "classes" / "face")
    assert run(sets, "classes") == FAILED
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {sets / 'classes'}: its photos have no boxes; give annotated photos, or photos without faces"
    )


def test_photos_without_any_error_cannot_calibrate():
    with pytest.raises(calibrate.InputError, match="too few faces"):
        calibrate.fit_scaling(calibrate.Judged([0.9, 0.8], [1.0, 1.0], [True, True]))


def test_judge_leaves_faces_out_that_annotators_may_have_missed(tmp_path):
    photo = AnnotatedPhoto(tmp_path / "a.jpg", np.array([(0, 0, 20, 20)], float), ("face",))
    found = [[Face((1, 0, 20, 20), 0.9), Face((40, 40, 60, 60), 0.8), Face((80, 80, 99, 99), 0.7)]]
    judged = calibrate.judge([photo], found, [[1.0, 0.5, 0.2]])
    assert judged == calibrate.Judged([0.9, 0.8, 0.7], [1.0, 0.5, 0.2], [True, False, False])
    judged = calibrate.judge([photo], found, [[1.0, 0.5, 0.2]], unannotated={str(photo.path): [(41, 40, 60, 60)]})
    assert judged == calibrate.Judged([0.9, 0.7], [1.0, 0.2], [True, False])


def test_judge_takes_the_overlap_that_a_set_asks_for(tmp_path):
    photo = AnnotatedPhoto(tmp_path / "a.jpg", np.array([(0, 0, 20, 20)], float), ("face",))
    found = [[Face((0, 0, 20, 8), 0.9)]]
    assert calibrate.judge([photo], found, [[1.0]]).right == [False]
    assert calibrate.judge([photo], found, [[1.0]], 0.3).right == [True]


def test_scaling_is_the_share_that_is_right():
    scores, right = [0.2] * 10 + [0.8] * 10, [True] * 1 + [False] * 9 + [True] * 6 + [False] * 4
    scaling = calibrate.fit_scaling(calibrate.Judged(scores, [1.0] * 20, right))
    np.testing.assert_allclose(scaling.to_probability(np.array([0.2, 0.8])), [0.1, 0.6], atol=1e-3)


def test_scaling_fits_the_confidence_after_verification():
    """The classifier halves each confidence: so the detector's own must be twice as high for one in three to be right."""
    scores, right = [0.2] * 12 + [0.8] * 12, [True] * 1 + [False] * 11 + [True] * 4 + [False] * 8
    scaling = calibrate.fit_scaling(calibrate.Judged(scores, [0.5] * 24, right))
    np.testing.assert_allclose(scaling.to_probability(np.array([0.2, 0.8])), [1 / 6, 2 / 3], atol=1e-3)


def test_the_classifier_verifies_what_it_calibrates(sets, astronaut):
    class Doubting:
        @classmethod
        def load(cls, path):
            return cls()

        def classify_and_verify(self, image, boxes):
            return np.empty((len(boxes), 3)), np.full(len(boxes), 0.3)

    assert run(sets, "people", "nofaces") == DONE
    trusted = confidence(sets / "a.onnx", astronaut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facemask.models.mask_classifier.MaskClassifier", Doubting)
        arguments = ["-f", str(sets / "a.onnx"), "-m", "m.onnx", "-d", str(sets / "people"), str(sets / "nofaces")]
        assert calibrate.main([*arguments, "--complete", str(sets / "people")]) == DONE
    assert confidence(sets / "a.onnx", astronaut) > trusted
