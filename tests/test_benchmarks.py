import shutil
import sys

import cv2
import pytest

from facemask import cli
from tests.conftest import EXAMPLES, ROOT
from tests.test_masked_faces import PEOPLE

pytestmark = pytest.mark.training
pytest.importorskip("pycocotools")

sys.path.insert(0, str(ROOT / "benchmarks"))
import face_detectors  # noqa: E402

OBJECT = "<object><name>x</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def photos(tmp_path):
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    shutil.copy(EXAMPLES / "people.jpg", tmp_path / "images")
    objects = "".join(OBJECT.format(*box) for box in PEOPLE)
    (tmp_path / "annotations" / "people.xml").write_text(f"<annotation>{objects}</annotation>")
    return str(tmp_path)


def test_face_detectors(tmp_path, photos, capsys):
    plot = tmp_path / "plot.png"
    args = face_detectors.build_parser().parse_args(["-d", photos, "-s", "320", "-o", str(plot)])
    assert cli.run(face_detectors.measure, args) == cli.DONE
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| res10, 300x300", "1.000", "1.00 / 1.00"],
        ["| ours, 320 px", "1.000", "1.00 / 1.00"],
        ["| ours, 512 px, tiles", "1.000", "1.00 / 1.00"],
    ]
    assert rows[0].endswith("| 1.00 |")
    assert cv2.imread(str(plot)) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-o", "plot.xyz"], "plot.xyz: unknown kind of plot; give a .png, .jpg, .pdf or .svg file", id="plot"),
        pytest.param(["-f", str(ROOT / "face_detector/res10_300x300_ssd.onnx")], "no other size; leave", id="res10"),
    ],
)
def test_face_detectors_refuses(tmp_path, photos, capsys, arguments, message):
    args = face_detectors.build_parser().parse_args(["-d", photos, "-o", str(tmp_path / "plot.png"), *arguments])
    assert cli.run(face_detectors.measure, args) == cli.FAILED
    assert message in capsys.readouterr().err
