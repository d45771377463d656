"""Several sources in one run: files one after the other; cameras at once, of which none waits for another."""

import json
import logging
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

import detect_mask_video
from facemask.errors import InputError
from facemask.types import Face, Frame
from facemask.video.outputs import FrameOutput
from facemask.video.session import Channel, Session
from facemask.video.sources import LiveSource, StoredSource, VideoSource, open_source, open_sources
from facemask.video.tracker import MaskTracker
from facemask.video.zones import ZoneFilter
from tests.helpers import Camera, number_of, numbered, write_video
from tests.test_detect_mask_video import people, start, wait_until  # noqa: F401 (a fixture)

CLASSES = ("with_mask", "without_mask")
FACE = Face((10, 10, 40, 40), 0.9)


class Source(StoredSource):
    """Gives numbered frames as a live source does, `errors` instead at a number, and nothing at the polls in `empty`."""

    is_live = is_waiting = True

    def __init__(self, name: str, count: int, empty=(), error_at: int | None = None) -> None:
        super().__init__(name, 25, None, 1)
        self.count, self.empty, self.error_at, self.polls = count, set(empty), error_at, 0

    def poll(self, on_stall=lambda seconds: None) -> Frame | None:
        self.polls += 1
        if self.polls in self.empty:
            on_stall(3.0)
            return None
        return super().poll(on_stall)

    def _read(self) -> Iterator[Frame]:
        for number in range(self.count):
            if number == self.error_at:
                raise InputError(f"{self.name}: is broken")
            yield Frame(number, number / 25, numbered(number))


class Output(FrameOutput):
    """Keeps the numbers of the frames, and the tracks of their faces."""

    def __init__(self) -> None:
        self.numbers, self.tracks, self.stalls = [], [], []

    def write(self, result, images) -> None:
        self.numbers.append(result.number)
        self.tracks.append([face.track for face in result.faces])

    def stalled(self, seconds: float) -> None:
        self.stalls.append(seconds)


def run(*sources: VideoSource, faces=(FACE,), max_frames: int | None = None) -> tuple[list[Channel], list[list[int]]]:
    """Process sources at once; return their channels, each with an `Output`, and the faces of each image in each batch."""
    batches: list[list[int]] = []

    def classify(images: list) -> list:
        batches.append([len(boxes) for _, boxes in images])
        return [(np.array([[0.9, 0.1]] * len(boxes)).reshape(-1, 2), np.ones(len(boxes))) for _, boxes in images]

    channels = [
        Channel(source, MaskTracker(lambda image, boxes: 1 / 0, CLASSES, 25.0), [Output()], ZoneFilter([], source.name))
        for source in sources
    ]
    Session(channels, lambda image: list(faces), classify, workers=2).run(max_frames)
    return channels, batches


def numbers_of(channels: list[Channel]) -> list[list[int]]:
    return [channel.outputs[0].numbers for channel in channels]


def test_each_source_has_its_own_frames_tracks_and_counts():
    channels, _ = run(Source("a", 20), Source("b", 5))
    assert numbers_of(channels) == [list(range(20)), list(range(5))]
    for channel, count in zip(channels, (20, 5), strict=True):
        assert channel.outputs[0].tracks == [[None]] + [[1]] * (count - 1)
        assert (channel.statistics.frames, channel.statistics.people.total()) == (count, 1)


def test_faces_of_several_sources_share_a_batch():
    _, batches = run(Source("a", 3), Source("b", 3), Source("c", 2))
    assert batches == [[1, 1, 1], [1, 1, 1], [1, 1]]


def test_next_faces_are_detected_while_those_before_are_classified():
    is_next_detected, waited = threading.Event(), []

    def detect(image: np.ndarray) -> list[Face]:
        if number_of(image) == 1:
            is_next_detected.set()
        return [FACE]

    def classify(images: list) -> list:
        waited.append(is_next_detected.wait(20))
        return [(np.array([[0.9, 0.1]]), np.ones(1)) for _ in images]

    channels = [
        Channel(source, MaskTracker(lambda image, boxes: 1 / 0, CLASSES, 25.0), [Output()], ZoneFilter([], source.name))
        for source in (Source("a", 2), Source("b", 2))
    ]
    Session(channels, detect, classify, workers=2).run()
    assert waited == [True, True]


def test_source_without_frames_holds_up_no_other():
    silent = Source("a", 3, empty=range(2, 33))
    channels, batches = run(silent, Source("b", 30))
    assert numbers_of(channels) == [[0, 1, 2], list(range(30))]
    assert channels[0].outputs[0].stalls == [3.0] * 31 and channels[1].outputs[0].stalls == []
    assert [len(batch) for batch in batches] == [2] + [1] * 31  # the other's frames did not wait for it


def test_source_that_fails_ends_alone(caplog):
    channels, _ = run(Source("a", 9, error_at=4), Source("b", 9))
    assert numbers_of(channels) == [list(range(4)), list(range(9))]
    assert caplog.messages == ["a: is broken"]
    assert [channel.error is not None for channel in channels] == [True, False]


def test_only_source_that_fails_ends_the_session():
    with pytest.raises(InputError, match="a: is broken"):
        run(Source("a", 9, error_at=4))


def test_max_frames_are_those_of_each_source():
    channels, _ = run(Source("a", 9), Source("b", 3), max_frames=5)
    assert numbers_of(channels) == [list(range(5)), list(range(3))]


def test_stop_ends_all():
    sources = [Source("a", 10**6), Source("b", 10**6)]

    class Stop(Output):
        def write(self, result, images) -> None:
            super().write(result, images)
            if result.number == 3:
                for source in sources:
                    source.stop()

    channels = [
        Channel(source, MaskTracker(lambda image, boxes: 1 / 0, CLASSES, 25.0), [Stop()], ZoneFilter([], source.name))
        for source in sources
    ]
    Session(channels, lambda image: [], lambda images: [(np.empty((0, 2)), np.empty(0))] * len(images), workers=2).run()
    assert numbers_of(channels) == [list(range(4))] * 2


class Watched(FrameOutput):
    """Keeps the numbers that the frames show."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def write(self, result, images) -> None:
        self.numbers.append(number_of(images.plain))


@pytest.mark.slow
def test_two_streams_of_which_one_is_cut(monkeypatch, caplog):
    """Nothing is lost but the gap, and what a slow machine leaves out, which is counted."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(LiveSource, "FIRST_WAIT", 0.2)
    with (
        Camera(map(numbered, range(60)), 12, cuts={20: 0.3}) as cut,
        Camera(map(numbered, range(60)), 12) as steady,
    ):
        sources = open_sources([cut.url, steady.url], timeout=3)
        channels = [
            Channel(source, MaskTracker(lambda image, boxes: 1 / 0, CLASSES, 25.0), [Watched()], ZoneFilter([], source.name))
            for source in sources
        ]
        Session(channels, lambda image: [], lambda images: [(np.empty((0, 2)), np.empty(0))] * len(images), workers=2).run()
        for source in sources:
            source.__exit__()
    for camera, channel, cuts in ((cut, channels[0], 2), (steady, channels[1], 1)):  # each is cut at its end
        numbers = channel.outputs[0].numbers
        assert numbers == sorted(set(numbers)) and numbers[-1] == 59
        assert (
            len({number for number in camera.sent if number > numbers[0]} - set(numbers)) <= cuts + channel.source.dropped_frames
        )
        assert channel.source.fault == "has ended; start again when it is back"
    assert cut.connections == 2 and steady.connections == 1
    assert sum(message.startswith(f"{cut.url}: back after ") for message in caplog.messages) == 1


def test_streams_that_differ_in_what_is_not_shown_have_names_of_their_own():
    with Camera(map(numbered, range(30)), 30) as camera:
        sources = open_sources([f"{camera.url}?channel=1", f"{camera.url}?channel=2"])
        for source in sources:
            source.__exit__()
    assert [source.name for source in sources] == [f"{camera.url}?…", f"{camera.url}?… #2"]


def test_camera_that_is_away_at_first_is_tried_again(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(LiveSource, "FIRST_WAIT", 0.05)
    late, there = Camera(map(numbered, range(30)), 30), Camera(map(numbered, range(10)), 30)
    late.refusing_until = math.inf
    with late, there:
        sources = open_sources([late.url, there.url], timeout=20)
        late.refusing_until = 0.0
        frame = next(sources[0].frames())
        for source in sources:
            source.__exit__()
    assert (frame.number, frame.time, sources[0].name) == (0, 0.0, late.url)
    assert caplog.messages[0] == f"{late.url}: cannot be opened as a video; check that it is one and plays elsewhere"
    assert any(message.startswith(f"{late.url}: back after ") for message in caplog.messages)


class Webcam:
    """OpenCV's capture of a webcam that gives two frames and drops; `openers` are the threads that opened one."""

    openers: ClassVar[list[threading.Thread]] = []

    def __init__(self, source: int, *backend: int) -> None:
        self.openers.append(threading.current_thread())
        self.frames = 2

    isOpened = release = lambda self: True
    get = lambda self, which: 25.0  # noqa: E731

    def read(self) -> tuple[bool, np.ndarray]:
        self.frames -= 1
        return self.frames >= 0, numbered(0)


@pytest.mark.parametrize(("platform", "is_main"), [("darwin", True), ("linux", False)])
def test_macos_opens_cameras_on_the_main_thread_also_again(monkeypatch, platform, is_main):
    """The platform is faked: what macOS itself does is not tested here."""
    monkeypatch.setattr(Webcam, "openers", [])
    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(LiveSource, "FIRST_WAIT", 0.01)
    sources = open_sources(["0", "1"])

    def fail_after_a_while(stall: float) -> None:
        assert stall < 20

    first, second = (source.frames(fail_after_a_while) for source in sources)
    while len(Webcam.openers) < 6:
        assert next(first).image is not None and next(second).image is not None
    for source in sources:
        source.__exit__()
        assert not source._thread.is_alive()  # though it may have waited for the main thread
    assert {thread is threading.main_thread() for thread in Webcam.openers} == {is_main}


def test_denied_camera_of_a_mac_says_where_to_allow_it(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    allow = "allow the terminal to use it (System Settings, Privacy & Security, Camera) and start again, or try -i 1"
    with pytest.raises(InputError) as error:
        open_sources(["97"])
    assert str(error.value) == f"camera 97: cannot be opened; {allow}"


def test_no_camera_is_there(caplog):
    with pytest.raises(InputError, match=r"^http://127.0.0.1:9/b: cannot be opened as a video"):
        open_sources(["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"])
    assert [message.partition(": ")[0] for message in caplog.messages] == ["http://127.0.0.1:9/a"]


def test_opening_hands_over_other_errors(monkeypatch):
    monkeypatch.setattr("facemask.video.sources.open_source", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_sources(["a.mp4"])


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path: Path) -> list[int]:
    with open_source(str(path)) as source:
        return [number_of(frame.image) for frame in source.frames()]


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """A folder with a video of three frames, one of five frames in a subfolder, and a file that is no video."""
    monkeypatch.chdir(tmp_path)
    Path("in/sub").mkdir(parents=True)
    write_video(Path("in/a.mp4"), map(numbered, range(3)))
    write_video(Path("in/sub/b.mkv"), map(numbered, range(10, 15)))
    Path("in/sub/bad.mp4").write_bytes(b"text")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param(["-i", "in"], 1, id="folder"),
        pytest.param(["-i", "in/**/*.m*"], 1, id="glob"),
        pytest.param(["-i", "in/a.mp4", "in/sub/b.mkv"], 0, id="two files"),
        pytest.param(["-i", "in/a.mp4", "-i", "in/sub/b.mkv"], 0, id="-i twice"),
    ],
)
def test_files_one_after_the_other(videos, capsys, given, code):
    assert detect_mask_video.main([*given, "-o", "out", "--jsonl", "o.jsonl"]) == code
    assert [(line["source"], line["frame"]) for line in lines_of(Path("o.jsonl"))] == [
        *(("in/a.mp4", number) for number in range(3)),
        *(("in/sub/b.mkv", number) for number in range(5)),
    ]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.mp4", "b.mkv"]
    assert frames_of(Path("out/a.mp4")) == [0, 1, 2] and frames_of(Path("out/b.mkv")) == [10, 11, 12, 13, 14]
    lines = [line for line in capsys.readouterr().err.splitlines() if "[INFO] no display" not in line]
    bad = "[WARN] in/sub/bad.mp4: cannot be opened as a video; check that it is one and plays elsewhere"
    assert [line for line in lines if line.startswith(("[WARN]", "error"))] == [bad] * code
    assert any(line.startswith("[INFO] in/a.mp4: 3 frames, 0 faces of 0 people; ") for line in lines)
    failed = ", 1 failed" if code else ""
    assert lines[-1].startswith(f"[INFO] {2 + code} sources{failed}: 8 frames, 0 faces of 0 people; ")


def test_results_in_the_folder_of_the_videos_are_no_sources(videos):
    Path("in/sub/bad.mp4").unlink()
    for _ in range(2):
        assert detect_mask_video.main(["-i", "in", "-o", "in/out", "--jsonl", "o.jsonl"]) == 0
        assert len(lines_of(Path("o.jsonl"))) == 8


def test_file_that_breaks_off_is_a_failure(videos, capsys):
    Path("in/a.mp4").unlink()
    write_video(Path("in/a.mkv"), map(numbered, range(100)))
    data = Path("in/a.mkv").read_bytes()
    Path("in/a.mkv").write_bytes(data[: len(data) // 2])
    assert detect_mask_video.main(["-i", "in/a.mkv", "in/sub/b.mkv"]) == 1
    err = capsys.readouterr().err
    assert "[WARN] in/a.mkv states 4.0 s, and breaks off after " in err
    assert "[INFO] 2 sources, 1 failed: " in err


def test_events_of_several_files(tmp_path, monkeypatch):
    """Each name of a person is one of its source; the snapshots' names begin with it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        write_video(Path(name), [people()] * 14)
    outputs = ["--jsonl", "o.jsonl", "--events", "e.jsonl", "--snapshots", "shots"]
    assert detect_mask_video.main(["-i", "a.mp4", "b.mp4", *outputs]) == 0
    assert [(line["source"], len(line["faces"])) for line in lines_of(Path("o.jsonl"))] == [("a.mp4", 8)] * 14 + [
        ("b.mp4", 8)
    ] * 14
    events = lines_of(Path("e.jsonl"))
    assert [event["source"] for event in events] == sorted(event["source"] for event in events)
    by_source = {source: [e for e in events if e["source"] == source] for source in ("a.mp4", "b.mp4")}
    assert len(by_source["a.mp4"]) == len(by_source["b.mp4"]) >= 6  # of three people at least
    for source, its_events in by_source.items():
        shots = [Path(event["snapshot"]).name for event in its_events if "snapshot" in event]
        assert shots and all(shot.startswith(f"{source[0]}-0") for shot in shots)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "in/a.mp4", "in/sub/b.mkv", "-o", "out.mp4"], "out.mp4: is one file for 2 sources; give -o a folder"),
        (["-i", "in/a.mp4", "0"], "camera 0: cameras and streams run at once, and files such as in/a.mp4 one after the other; "
         "give one kind, and the other to another run"),
        (["-i", "in/a.mp4", "--zone", "a@2:0,0,1,0,1,1"], "--zone a@2: is for source 2, and -i names 1; number them from 1"),
        (["-i", "in/a.mp4", "in/sub/b.mkv", "-o", "in"], "in/a.mp4: is an input, or another output too; choose another name for it"),
        (["-i", "http://127.0.0.1:9/x", "http://127.0.0.1:9/y"], "http://127.0.0.1:9/y: cannot be opened as a video; check that "
         "it is one and plays elsewhere"),
    ],
)  # fmt: skip
def test_bad_input(videos, capsys, arguments, message):
    assert detect_mask_video.main(arguments) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")] == [f"error: {message}"]


@pytest.mark.slow
def test_two_cameras_of_which_one_drops(tmp_path, start):  # noqa: F811
    """The whole program: its own file for each camera, one page, one file of records, events of both; SIGTERM."""
    with Camera([people()] * 3000, 5, cuts={15: 1.0}) as cut, Camera([people()] * 3000, 5) as steady:
        out, jsonl, events = tmp_path / "out", tmp_path / "o.jsonl", tmp_path / "e.jsonl"
        process = start("-i", cut.url, steady.url, "-o", out, "--jsonl", jsonl, "--events", events, "--serve", "0", "--blur")
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
        reader.start()
        wait_until(lambda: any(f"{cut.url}: back after " in line for line in lines))
        written = tmp_path / "o.partial.jsonl"
        back = written.read_text().count(cut.url)
        wait_until(lambda: written.read_text().count(cut.url) > back + 5)
        wait_until(lambda: all(camera.url in events.read_text() for camera in (cut, steady)))
        process.terminate()
        assert process.wait(60) == 143
        reader.join(60)
    records = lines_of(jsonl)
    counts = {url: sum(record["source"] == url for record in records) for url in (cut.url, steady.url)}
    videos = sorted(out.iterdir())
    assert len(videos) == 2
    for path in videos:
        (url,) = [url for url in counts if path.stem.split("_")[1] in url]
        assert len(frames_of(path)) == counts[url] > 5
    assert {event["source"] for event in lines_of(events)} == set(counts)
    assert any("[INFO] 2 sources: " in line for line in lines)
