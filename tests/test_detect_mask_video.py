import json
from collections import Counter

import cv2
import pytest

import detect_mask_video
from facemask.media import VideoSource
from tests.conftest import EXAMPLES


@pytest.fixture
def people_video(tmp_path):
    """Nine frames of examples/people.jpg and a black one, 10 frames per second."""
    image = cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), (608, 320))
    path = tmp_path / "people.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (608, 320))
    for frame in [image] * 9 + [image * 0]:
        writer.write(frame)
    writer.release()
    return path


def test_video_to_video_and_jsonl(capsys, tmp_path, people_video):
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "-o", str(out), "--jsonl", str(jsonl)]) == 0
    records = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(10))
    assert [record["time"] for record in records] == pytest.approx([n / 10 for n in range(10)])
    assert [len(record["faces"]) for record in records] == [8] * 9 + [0]
    assert {face["label"] for face in records[0]["faces"]} >= {"with_mask", "without_mask"}
    with VideoSource(str(out)) as source:
        assert source.rate == pytest.approx(10)
        assert len(list(source.frames())) == 10
    err = capsys.readouterr().err
    assert f"[INFO] saved to {out}" in err
    assert "[INFO] 10 frames, 72 faces seen" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.mp4", "people.avi"]


def test_max_frames(tmp_path, people_video):
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "--jsonl", str(jsonl), "--max-frames", "3"]) == 0
    assert len(jsonl.read_text().splitlines()) == 3


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (RuntimeError, None)])
def test_stopped_in_the_middle_finishes_its_outputs(tmp_path, people_video, monkeypatch, error, code):
    from facemask.pipeline import MaskDetector

    whole, seen = MaskDetector.detect, []

    def detect_some(self, image, confidence):
        seen.append(image)
        if len(seen) == 5:
            raise error
        return whole(self, image, confidence)

    monkeypatch.setattr("facemask.workers.share_cores", lambda: (1, 1))  # one after the other, so that they can be counted
    monkeypatch.setattr(MaskDetector, "detect", detect_some)
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    arguments = ["-i", str(people_video), "-o", str(out), "--jsonl", str(jsonl)]
    if code is None:
        with pytest.raises(error):
            detect_mask_video.main(arguments)
    else:
        assert detect_mask_video.main(arguments) == code
    assert len(jsonl.read_text().splitlines()) == 4
    with VideoSource(str(out)) as source:
        assert len(list(source.frames())) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.mp4", "people.avi"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-i", "none.mp4"], "error: none.mp4: no such video; give a file, a stream's URL, or a camera's index (0 is the first)", id="missing"),
        pytest.param(["-i", "text.mp4"], "error: text.mp4: cannot be opened as a video; check that it is one and plays elsewhere", id="text"),
        pytest.param(["-i", "97"], "error: camera 97: cannot be opened; plug it in, try -i 1, or give a video: -i FILE", id="no camera"),
        pytest.param(["-i", "http://127.0.0.1:9/x"], "error: http://127.0.0.1:9/x: cannot be opened as a video; check that it is one and plays elsewhere", id="no stream"),
        pytest.param(["-i", "http://me:secret@127.0.0.1:9/x"], "error: http://127.0.0.1:9/x: cannot be opened as a video; check that it is one and plays elsewhere", id="password kept back"),
        pytest.param(["-i", "people.avi", "-o", "out.gif"], "error: out.gif: cannot write this kind of video; use .mp4 or .avi", id="suffix"),
        pytest.param(["-i", "people.avi", "-o", "none/out.mp4"], "error: none/out.mp4: folder none does not exist; make it first", id="no folder"),
        pytest.param(["-i", "people.avi", "-o", "people.avi"], "error: people.avi: is an input, or another output too; choose another name for it", id="over the input"),
        pytest.param(["-i", "people.avi", "--show"], "error: --show: there is no display, or OpenCV has no windows (opencv-python-headless); leave --show away", id="no display"),
        pytest.param(["-i", "people.avi", "-m", "none.onnx"], "error: none.onnx: no such file; give -m the model that train_mask_detector.py wrote", id="no model"),
    ],
)  # fmt: skip
def test_bad_input(capfd, tmp_path, people_video, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_bytes(b"text")
    assert detect_mask_video.main(arguments) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [message]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.avi", "text.mp4"]


@pytest.mark.parametrize(("key", "frames"), [(ord("q"), 1), (27, 1), (-1, 10)])
def test_window_until_q(monkeypatch, tmp_path, people_video, key, frames):
    pictures = []
    monkeypatch.setattr("facemask.media.has_display", lambda: True)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: pictures.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: key)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: 1.0)
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "--jsonl", str(jsonl)]) == 0
    assert len(pictures) == len(jsonl.read_text().splitlines()) == frames


def test_closed_window_stops(monkeypatch, people_video, capsys):
    monkeypatch.setattr("facemask.media.has_display", lambda: True)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: None)
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: 0.0)
    assert detect_mask_video.main(["-i", str(people_video)]) == 0
    assert "[INFO] 1 frames (stopped)" in capsys.readouterr().err


def test_video_without_frames(capsys, tmp_path):
    cv2.VideoWriter(str(tmp_path / "none.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64)).release()
    (tmp_path / "old.jsonl").write_text("old")
    arguments = ["-i", str(tmp_path / "none.avi"), "--jsonl", str(tmp_path / "old.jsonl"), "-o", str(tmp_path / "out.mp4")]
    assert detect_mask_video.main(arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith(f"error: {tmp_path}/none.avi: ")
    assert (tmp_path / "old.jsonl").read_text() == "old"
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("arguments", [["--max-frames", "0"], ["-c", "2"], ["--colour"]])
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as error:
        detect_mask_video.main(arguments)
    assert error.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.shared
def test_street_video(shared, tmp_path):
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    source = shared / "videos" / "street_masks.mp4"
    assert detect_mask_video.main(["-i", str(source), "-o", str(out), "--jsonl", str(jsonl)]) == 0
    records = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(635))
    faces = [face for record in records for face in record["faces"]]
    assert len(faces) > 100
    assert Counter(face["label"] for face in faces).most_common(1)[0][0] == "with_mask"
    with VideoSource(str(out)) as written:
        assert sum(1 for _ in written.frames()) == 635
