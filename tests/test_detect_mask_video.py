import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect_mask_video
from facemask.models.center_face import CenterFaceDetector
from facemask.video.sources import open_source
from facemask.video.writer import VideoSink
from tests.helpers import EXAMPLES, ROOT, Camera

NO_DISPLAY = "[INFO] no display: no window; --serve 8000 shows the video to a browser"
WAIT = 120  # s, for another process on a busy machine


def people(width: int = 608, height: int = 320) -> np.ndarray:
    return cv2.resize(cv2.imread(str(EXAMPLES / "people.jpg")), (width, height))


def frames_of(path: Path) -> list:
    with open_source(str(path)) as source:
        return list(source.frames())


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def people_video(tmp_path):
    """Nine frames of examples/people.jpg and a black one, 10 frames per second."""
    image = people()
    path = tmp_path / "people.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (608, 320))
    for frame in [image] * 9 + [image * 0]:
        writer.write(frame)
    writer.release()
    return path


def test_video_to_video_and_jsonl(capsys, tmp_path, people_video):
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "-o", str(out), "--jsonl", str(jsonl)]) == 0
    records = lines_of(jsonl)
    assert [record["frame"] for record in records] == list(range(10))
    assert [record["time"] for record in records] == pytest.approx([n / 10 for n in range(10)])
    assert [len(record["faces"]) for record in records] == [8] * 9 + [0]
    assert {face["label"] for face in records[0]["faces"]} >= {"with_mask", "without_mask"}
    assert {face["track"] for face in records[0]["faces"]} == {None}
    for record in records[1:9]:
        assert {face["track"] for face in record["faces"]} == set(range(1, 9))
    boxes = defaultdict(set)
    for record in records[1:9]:
        for face in record["faces"]:
            boxes[face["track"]].add(tuple(round(side / 20) for side in face["box"]))
    assert all(len(near) <= 4 for near in boxes.values())  # each number stays with its face
    with open_source(str(out)) as source:
        assert source.rate == 10
        assert len(list(source.frames())) == 10
    err = capsys.readouterr().err
    assert NO_DISPLAY in err
    assert f"[INFO] saved to {out}" in err
    assert "[INFO] 10 frames, 72 faces of 8 people (" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.mp4", "people.avi"]


def test_missing_folders_are_made(tmp_path, people_video):
    folder = tmp_path / "new" / "one"
    outputs = ["-o", str(folder / "out.mp4"), "--jsonl", str(folder / "out.jsonl"), "--events", str(folder / "events.jsonl")]
    arguments = ["-i", str(people_video), *outputs, "--snapshots", str(folder / "shots")]
    assert detect_mask_video.main(arguments) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["events.jsonl", "out.jsonl", "out.mp4", "shots"]
    assert [len(record["faces"]) for record in lines_of(folder / "out.jsonl")] == [8] * 9 + [0]


def test_report_of_the_events(tmp_path, people_video):
    """A page with an image of each event; the probabilities are those of the events, the least first."""
    report, events = tmp_path / "new" / "r.html", tmp_path / "e.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "--report", str(report), "--events", str(events)]) == 0
    confirmed = [record for record in lines_of(events) if record["event"] == "confirmed"]
    page = report.read_text(encoding="utf-8")
    shown = [float(value) for value in re.findall(r'data-probability="([^"]*)"', page)]
    assert shown == sorted(record["probability"] for record in confirmed) and len(shown) >= 2
    assert page.count("data:image/jpeg;base64,") == len(shown)
    assert page.count(f"<td>{people_video}</td>") == len({record["track"] for record in confirmed})


def test_max_frames(tmp_path, people_video):
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "--jsonl", str(jsonl), "--max-frames", "3"]) == 0
    assert len(lines_of(jsonl)) == 3


def test_stride_and_width(tmp_path, people_video):
    out, jsonl = tmp_path / "out.mkv", tmp_path / "out.jsonl"
    arguments = ["-i", str(people_video), "--stride", "4", "--width", "400", "-o", str(out), "--jsonl", str(jsonl)]
    assert detect_mask_video.main(arguments) == 0
    assert [(line["frame"], line["time"]) for line in lines_of(jsonl)] == [(0, 0), (4, 0.4), (8, 0.8)]
    assert [frame.image.shape for frame in frames_of(out)] == [(210, 400, 3)] * 3


def test_images_as_frames(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.jpg"), people())
    (tmp_path / "in" / "3.jpg").write_bytes(b"text")
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(tmp_path / "in"), "--rate", "2", "--jsonl", str(jsonl)]) == 1
    assert [(line["time"], len(line["faces"])) for line in lines_of(jsonl)] == [(0, 8), (0.5, 8), (1, 8)]
    err = capsys.readouterr().err
    assert f"[WARN] {tmp_path}/in/3.jpg: not a supported image, or corrupt" in err
    assert "[INFO] 3 frames, 1 dropped, 24 faces of 8 people" in err


def after_frames(monkeypatch, count, action):
    """Have `action` called as the face detector receives that many frames, one after the other."""
    detect, calls = CenterFaceDetector.detect, []

    def detect_some(self, *arguments):
        calls.append(arguments)
        if len(calls) == count:
            action()
        return detect(self, *arguments)

    monkeypatch.setattr("facemask.parallel.thread_budget", lambda: (1, 1))
    monkeypatch.setattr("facemask.video.session.PREFETCH", 1)
    monkeypatch.setattr(CenterFaceDetector, "detect", detect_some)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_finishes_the_outputs(capsys, tmp_path, people_video, monkeypatch, number, code):
    after_frames(monkeypatch, 5, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "-o", str(out), "--jsonl", str(jsonl)]) == code
    assert signal.getsignal(number) == before
    assert len(lines_of(jsonl)) == len(frames_of(out)) == 5  # the frame at hand is finished
    assert "[INFO] 5 frames (stopped), 40 faces of 8 people" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.mp4", "people.avi"]


def test_second_signal_breaks_off(tmp_path, people_video, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    after_frames(monkeypatch, 5, twice)
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "--jsonl", str(jsonl)]) == 130
    assert len(lines_of(jsonl)) in (4, 5)


def test_error_in_the_middle_finishes_the_outputs(tmp_path, people_video, monkeypatch):
    def fail():
        raise RuntimeError

    after_frames(monkeypatch, 5, fail)
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    with pytest.raises(RuntimeError):
        detect_mask_video.main(["-i", str(people_video), "-o", str(out), "--jsonl", str(jsonl)])
    assert len(lines_of(jsonl)) == len(frames_of(out)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.mp4", "people.avi"]


def test_full_disk_finishes_the_other_outputs(capsys, tmp_path, people_video, monkeypatch):
    import facemask.io.json_lines

    def write(self, record, written=facemask.io.json_lines.JsonLines.write):
        if record["frame"] == 6:
            self._file.close()
            self._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        written(self, record)

    monkeypatch.setattr(facemask.io.json_lines.JsonLines, "write", write)
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "-o", str(out), "--jsonl", str(jsonl)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {jsonl}: cannot be written (No space left on device); free some space, or choose another place"
    )
    assert len(lines_of(jsonl)) == len(frames_of(out)) == 6


@pytest.fixture
def start():
    """Start the script as a process, which is killed if the test has not ended it."""
    processes = []

    def start(*arguments: object) -> subprocess.Popen:
        processes.append(start_process(*arguments))
        return processes[-1]

    yield start
    for process in processes:
        with process:  # closes its pipes
            process.kill()


def start_process(*arguments: object) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, "detect_mask_video.py", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_process_leaves_what_it_had(tmp_path, start):
    """Whole lines, and a video that can be played, under names of unfinished files."""
    image = people()
    with Camera([image] * 3000, 30) as camera:
        process = start(
            "-i", camera.url, "-o", tmp_path / "out.mp4", "--jsonl", tmp_path / "out.jsonl", "--events", tmp_path / "e.jsonl"
        )
        lines, video = tmp_path / "out.partial.jsonl", tmp_path / "out.partial.mp4"
        wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") > 150)
        process.kill()
        process.communicate(timeout=WAIT)
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock")
    assert names == ["e.jsonl", "out.partial.jsonl", "out.partial.mp4"]
    assert lines.read_bytes().endswith(b"\n")
    count = len(lines_of(lines))
    assert count - 100 < len(frames_of(video)) <= count  # two seconds per fragment, and the frames that the encoder holds
    assert "confirmed" in {event["event"] for event in lines_of(tmp_path / "e.jsonl")}


@pytest.mark.slow
def test_stream_that_is_cut_served_to_a_browser_and_stopped(tmp_path, start):
    """A guard desk: a camera that drops, events with a command and hidden faces, the page, SIGTERM."""
    out, jsonl, events, reported = (tmp_path / name for name in ("out.mp4", "out.jsonl", "events.jsonl", "reported.jsonl"))
    hook = tmp_path / "hook.py"
    hook.write_text(f"import sys; open({str(reported)!r}, 'a').write(sys.stdin.read())")
    with Camera([people()] * 3000, 10, cuts={25: 0.5}) as camera:
        process = start(
            "-i", camera.url, "-o", out, "--jsonl", jsonl, "--events", events, "--snapshots", tmp_path / "shots",
            "--on-event", f"'{sys.executable}' '{hook}'", "--blur", "--serve", "127.0.0.1:0",
        )  # fmt: skip
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
        reader.start()
        wait_until(lambda: any("watch at " in line for line in lines))
        url = next(line for line in lines if "watch at " in line).split("watch at ")[1].strip()

        def state() -> dict:
            with urllib.request.urlopen(url + "state", timeout=WAIT) as response:
                (state,) = json.load(response)["cameras"]
                return state

        wait_until(lambda: any(f"{camera.url}: back after " in line for line in lines))
        first = state()["time"]
        wait_until(
            lambda: state()["time"] > first and sum(state()["faces"].values()) == 8 and state()["people"].get("Mask", 0) >= 4
        )
        with urllib.request.urlopen(url + "image.jpg", timeout=WAIT) as response:
            shown = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 143
        reader.join(WAIT)
    err = "".join(lines)
    assert f"{camera.url}: the connection is lost; opening it again in 1 s" in err
    assert camera.connections >= 2
    records = lines_of(jsonl)
    is_slow = max(b["time"] - a["time"] for a, b in pairwise(records)) > 1.4  # a machine on which tracks end meanwhile
    assert is_slow or {face["track"] for face in records[-1]["faces"]} == set(range(1, 9))  # the gap of a second did not matter
    assert len(frames_of(out)) == len(records)
    assert frames_of(out)[-1].time == pytest.approx(records[-1]["time"], abs=0.01)
    event_records = lines_of(events)
    bare = sorted(event["track"] for event in event_records if event["event"] == "confirmed")
    assert (is_slow or len(bare) >= 3) and bare == sorted(event["track"] for event in event_records if event["event"] == "ended")
    assert lines_of(reported) == event_records
    shots = sorted((tmp_path / "shots").iterdir())
    assert sorted(event["snapshot"] for event in event_records if "snapshot" in event) == list(map(str, shots))
    # No face can be known in anything that was shown or written: the detector finds none.
    from facemask.models.face_detectors import load_face_detector

    detector = load_face_detector(ROOT / "face_detector" / "masked_faces_ssd.onnx")
    assert len(detector.detect(people())) == 8
    for image in (shown, *(frame.image for frame in frames_of(out)), *(cv2.imread(str(shot)) for shot in shots)):
        assert image.shape == (320, 608, 3)
        assert detector.detect(image) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-i", "none.mp4"], "error: none.mp4: no such video; give a file, a stream's URL, or a camera's index (0 is the first)", id="missing"),
        pytest.param(["-i", "text.mp4"], "error: text.mp4: cannot be opened as a video; check that it is one and plays elsewhere", id="text"),
        pytest.param(["-i", "97"], "error: camera 97: cannot be opened; plug it in, try -i 1, or give a video: -i FILE", id="no camera"),
        pytest.param(["-i", "http://127.0.0.1:9/x"], "error: http://127.0.0.1:9/x: cannot be opened as a video; check that it is one and plays elsewhere", id="no stream"),
        pytest.param(["-i", "http://me:secret@127.0.0.1:9/x"], "error: http://127.0.0.1:9/x: cannot be opened as a video; check that it is one and plays elsewhere", id="password kept back"),
        pytest.param(["-i", "people.avi", "-o", "out.gif"], "error: out.gif: cannot write this kind of video; use .mp4 or .mkv", id="suffix"),
        pytest.param(["-i", "people.avi", "-o", "text.mp4/out.mp4"], "error: text.mp4/out.mp4: text.mp4 is not a folder; choose another place", id="file as folder"),
        pytest.param(["-i", "people.avi", "--jsonl", "people.avi"], "error: people.avi: is an input, or another output too; choose another name for it", id="over the input"),
        pytest.param(["-i", "people.avi", "--show"], "error: --show: there is no display, or OpenCV has no windows (opencv-python-headless); omit --show", id="no display"),
        pytest.param(["-i", "people.avi", "--events", "text.mp4/e.jsonl"], "error: text.mp4/e.jsonl: text.mp4 is not a folder; choose another place", id="file as folder for events"),
        pytest.param(["-i", "people.avi", "--jsonl", "a.jsonl", "--events", "a.jsonl"], "error: a.jsonl: is an input, or another output too; choose another name for it", id="two to one file"),
        pytest.param(["-i", "people.avi", "--snapshots", "people.avi"], "error: people.avi: cannot make this folder (File exists); choose another place", id="no folder for snapshots"),
        pytest.param(["-i", "people.avi", "--on-event", "no_such_program"], "error: --on-event: no program 'no_such_program'; give its path, or put it on the PATH", id="no command"),
        pytest.param(["-i", "people.avi", "--serve", "192.0.2.1:0"], "error: 192.0.2.1:0: cannot listen (Cannot assign requested address); choose another port or host", id="no such host"),
        pytest.param(["-i", "people.avi", "-m", "none.onnx"], "error: none.onnx: no such file; give -m the model that train_mask_detector.py wrote", id="no model"),
    ],
)  # fmt: skip
def test_bad_input(capfd, tmp_path, people_video, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_bytes(b"text")
    assert detect_mask_video.main(arguments) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("[INFO] no display: no window")] == [message]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.avi", "text.mp4"]


@pytest.mark.parametrize(("key", "frames"), [(ord("q"), 1), (27, 1), (-1, 10)])
def test_window_until_q(monkeypatch, tmp_path, people_video, key, frames):
    images = []
    monkeypatch.setattr("facemask.video.display.has_display", lambda: True)
    monkeypatch.setattr(cv2, "namedWindow", lambda name, flags: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda name, width, height: None)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: images.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: key)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: 1.0)
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(people_video), "--jsonl", str(jsonl)]) == 0
    assert len(images) == len(jsonl.read_text().splitlines()) == frames


def gone(name: str, which: int) -> float:
    raise cv2.error("NULL guiReceiver (please create a window)")  # as Qt has it


@pytest.mark.parametrize("is_there", [pytest.param(lambda name, which: 0.0, id="hidden"), pytest.param(gone, id="gone")])
def test_closed_window_stops(monkeypatch, tmp_path, people_video, capsys, is_there):
    monkeypatch.setattr("facemask.video.display.has_display", lambda: True)
    monkeypatch.setattr(cv2, "namedWindow", lambda name, flags: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda name, width, height: None)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: None)
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    monkeypatch.setattr(cv2, "getWindowProperty", is_there)
    out = tmp_path / "out.mp4"
    assert detect_mask_video.main(["-i", str(people_video), "-o", str(out)]) == 0
    assert "[INFO] 1 frames (stopped)" in capsys.readouterr().err
    assert len(frames_of(out)) == 1


@pytest.mark.slow
def test_closed_window_of_a_silent_camera(monkeypatch, tmp_path, capsys):
    """It can be closed while there is no image, and shows for how long."""
    images, texts = [], []
    monkeypatch.setattr("facemask.video.display.has_display", lambda: True)
    monkeypatch.setattr("facemask.video.grid.STALL", 0.3)
    monkeypatch.setattr("facemask.video.grid.draw_status", lambda image, text: texts.append(text))
    monkeypatch.setattr(cv2, "namedWindow", lambda name, flags: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda name, width, height: None)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: images.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: float("no image for 1 s" not in texts))
    jsonl = tmp_path / "out.jsonl"
    with Camera([people()] * 100, 20, stall_at=30) as camera:
        assert detect_mask_video.main(["-i", camera.url, "--jsonl", str(jsonl)]) == 0
    assert "no image for 0 s" in texts and texts[-1] == "no image for 1 s"
    assert " frames (stopped), " in capsys.readouterr().err
    assert len(lines_of(jsonl)) > 0


def test_stopped_before_the_first_frame(monkeypatch, tmp_path, people_video, capsys):
    import facemask.video.tracker

    def stop(*args, make=facemask.video.tracker.MaskTracker.__init__):
        os.kill(os.getpid(), signal.SIGTERM)
        make(*args)

    monkeypatch.setattr(facemask.video.tracker.MaskTracker, "__init__", stop)
    assert detect_mask_video.main(["-i", str(people_video), "-o", str(tmp_path / "out.mp4")]) == 143
    assert "[INFO] 0 frames (stopped), 0 faces of 0 people; 0.0 s, 0.0 frames/s" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_video_without_frames(capsys, tmp_path):
    cv2.VideoWriter(str(tmp_path / "none.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64)).release()
    (tmp_path / "old.jsonl").write_text("old")
    arguments = ["-i", str(tmp_path / "none.avi"), "--jsonl", str(tmp_path / "old.jsonl"), "-o", str(tmp_path / "out.mp4")]
    assert detect_mask_video.main(arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith(f"error: {tmp_path}/none.avi: ")
    assert (tmp_path / "old.jsonl").read_text() == "old"
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-frames", "0"],
        ["-c", "2"],
        ["--colour"],
        ["--serve", "x"],
        ["--serve", "70000"],
        ["--password", "x"],
        ["--serve", "8000", "--password", ""],
        ["--tls-cert", "c.pem"],
        ["--serve", "8000", "--tls-key", "k.pem"],
        ["--reconnect", "-1"],
        ["--stride", "0"],
        ["--rate", "0"],
        ["--rate", "1000"],
    ],
)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as error:
        detect_mask_video.main(arguments)
    assert error.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8000", ("127.0.0.1", 8000)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:80", ("::1", 80)),
        ("desk.example:80", ("desk.example", 80)),
    ],
)
def test_host_and_port(text, expected):
    assert detect_mask_video.build_parser().parse_args(["--serve", text]).serve == expected


def test_half_a_video_is_a_failure(tmp_path, capsys):
    path = tmp_path / "people.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (608, 320))
    for _ in range(40):
        writer.write(people())
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(path), "--jsonl", str(jsonl)]) == 1
    last = lines_of(jsonl)[-1]["time"]
    assert f"[WARN] {path} states 4.0 s, and breaks off after {last:.1f} s" in capsys.readouterr().err
    assert 10 < len(lines_of(jsonl)) < 30


def test_gap_in_a_video_is_no_failure(tmp_path):
    with VideoSink(tmp_path / "gap.mkv", Fraction(10)) as sink:
        for number in range(20):
            sink.write(people(), number / 10 + 5 * (number >= 10))
    assert detect_mask_video.main(["-i", str(tmp_path / "gap.mkv")]) == 0


def test_small_faces_of_large_images_are_hidden(tmp_path):
    image = np.full((1080, 1920, 3), 128, np.uint8)
    image[400:560, 700:1004] = people(304, 160)
    assert cv2.imwrite(str(tmp_path / "in.png"), image)
    jsonl = tmp_path / "out.jsonl"
    assert detect_mask_video.main(["-i", str(tmp_path / "in.png"), "--blur", "--jsonl", str(jsonl)]) == 0
    assert len(lines_of(jsonl)[0]["faces"]) == 8


def test_rate_that_is_not_used(people_video, capsys):
    assert detect_mask_video.main(["-i", str(people_video), "--rate", "50", "--max-frames", "1"]) == 0
    assert f"[WARN] --rate: not used, for {people_video} states 10 frames per second" in capsys.readouterr().err


@pytest.mark.shared
def test_street_video(shared, tmp_path):
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    source = shared / "videos" / "street_masks.mp4"
    assert detect_mask_video.main(["-i", str(source), "-o", str(out), "--jsonl", str(jsonl)]) == 0
    records = lines_of(jsonl)
    assert [record["frame"] for record in records] == list(range(635))
    faces = [face for record in records for face in record["faces"]]
    assert Counter(face["label"] for face in faces).most_common(1)[0][0] == "with_mask"
    # 123 people, each in one scene; a number for each face of each frame would be thousands
    assert 100 < max(face["track"] or 0 for face in faces) < 160 and len(faces) > 3000
    with open_source(str(source)) as original, open_source(str(out)) as annotated:
        times = [frame.time for frame in original.frames()]
        assert [frame.time for frame in annotated.frames()] == pytest.approx(times, abs=1e-4)
    assert [record["time"] for record in records] == pytest.approx(times, abs=1e-4)
