import re
import shutil
from fractions import Fraction

import cv2
import numpy as np
import pytest

from facemask.cli.run import DONE, FAILED, run
from facemask.video.writer import VideoSink
from tests.helpers import EXAMPLES, PEOPLE, ROOT

pytestmark = [pytest.mark.training, pytest.mark.slow]
pytest.importorskip("sklearn")

from benchmarks import face_detectors, speed, tracking  # noqa: E402

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
    assert run(face_detectors.measure, args) == DONE
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
        pytest.param(["-f", str(ROOT / "face_detector/res10_300x300_ssd.onnx")], "no other size; omit", id="res10"),
    ],
)
def test_face_detectors_refuses(tmp_path, photos, capsys, arguments, message):
    args = face_detectors.build_parser().parse_args(["-d", photos, "-o", str(tmp_path / "plot.png"), *arguments])
    assert run(face_detectors.measure, args) == FAILED
    assert message in capsys.readouterr().err


def test_row():
    row = speed.Row("video", "frames/s", [10.0, 5.0, 8.0], [40.0, 25.0, 40.0], more_is_better=True)
    np.testing.assert_allclose(row.ratios, [4, 5, 5])
    assert row.to_markdown() == "| video | **5.0** (4.0 to 5.0) | 8.0 frames/s | 40 frames/s |"
    row = speed.Row("a face", "ms", [100.0], [0.5])
    assert row.to_markdown() == "| a face | **200.0** | 100 ms | 0.50 ms |"


def test_multiply_adds():
    keras = pytest.importorskip("keras")
    from facemask.training.onnx_export import to_onnx

    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(images)  # 4x4x4 outputs of 3x3x3
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 4x4x4 of 3x3
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(5)(x))  # 5 of 4
    assert speed.multiply_adds(to_onnx(model, {}, "y"), (2, 3, 8, 8)) == 2 * (64 * 27 + 64 * 9 + 20)


def test_speed(tmp_path, capsys):
    pytest.importorskip("keras")
    arguments = ["--turns", "1", "--frames", "3", "--count", "2", "-o", str(tmp_path / "speed")]
    args = speed.build_parser().parse_args(arguments)
    assert run(speed.measure, args) == DONE
    page = (tmp_path / "speed" / "speed.md").read_text()
    assert page == capsys.readouterr().out
    for what in (
        "start to the faces of one image",
        r"one image of a folder of 2 \(\d+ .*\)",
        "video, written.*",
        "an image of 1 face",
    ):
        assert re.search(rf"\| {what} \| \*\*\d", page)
    assert re.search(r"\| face detector in float32, 512x384 px \| \d+ \| [\d.]+ \| \d+% \|", page)
    assert re.search(r"\| images of 1280 px \| \d+ \|", page)
    assert cv2.imread(str(tmp_path / "speed" / "speed.png")) is not None


def test_speed_training_without_weights(capsys):
    assert run(speed.measure, speed.build_parser().parse_args(["--train", "faces"])) == FAILED
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --train: needs ImageNet's weights too; give --weights")


def test_tracking(tmp_path, capsys):
    """Four frames of the eight people; two of them are labelled, one of them wrongly."""
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    with VideoSink(tmp_path / "people.mkv", Fraction(25)) as sink:
        for number in range(4):
            sink.write(image, number / 25)
    boxes = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in PEOPLE]
    lines = [
        f"{frame},{person},{x},{y},{width},{height},1,{int(person > 6)},1\n"
        for frame in range(1, 5)
        for person, (x, y, width, height) in enumerate(boxes, 1)
    ]
    (tmp_path / "truth.txt").write_text("".join(lines))
    arguments = ["--video", str(tmp_path / "people.mkv"), "--truth", str(tmp_path / "truth.txt")]
    assert run(tracking.measure, tracking.build_parser().parse_args(arguments)) == DONE
    rows = [row.strip("| ").split(" | ") for row in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1:5] for row in rows] == [["1.00", "0", "0", "50.0%"]] * 4
    assert [row[5] for row in rows] == ["100.0%"] * 4
    assert [row[8] for row in rows] == ["32", "32", "32", "32"]


def test_tracking_bad_truth(tmp_path, capsys):
    (tmp_path / "truth.txt").write_text("1,2,x")
    arguments = ["--video", "none.mp4", "--truth", str(tmp_path / "truth.txt")]
    assert run(tracking.measure, tracking.build_parser().parse_args(arguments)) == FAILED
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/truth.txt: cannot be read (")
