import json
import threading

import numpy as np
import pytest

from facemask.errors import InputError
from facemask.io.json_lines import JsonLines
from facemask.types import Detection, FrameResult, Track
from facemask.video import outputs
from facemask.video.frame_images import FrameImages
from facemask.video.grid import Grid
from facemask.video.live_page import LivePage
from facemask.video.live_server import Camera
from facemask.video.outputs import FrameRecords, Statistics, VideoFile, WindowOutput

IMAGES = FrameImages(np.zeros((40, 60, 3), np.uint8), FrameResult(0, 0.0, [], [], [], []))


def detection(label: str, probability: float = 0.9, track: int | None = None) -> Detection:
    return Detection((1, 2, 11, 12), 0.98765, label, probability, {label: probability, "other": 1 - probability}, track)


def person(id: int, confirmed_label: str) -> Track:
    label = confirmed_label or "with_mask"
    return Track(id, 0.0, 1.0, 5, label, {label: 0.9, "other": 0.1}, bool(confirmed_label), confirmed_label, (1, 2, 11, 12), 0.0)


def result_of(faces=(), tracks=(), ended=(), number: int = 0) -> FrameResult:
    return FrameResult(number, number / 10, list(faces), list(tracks), [], list(ended))


def test_statistics_count_faces_and_people(monkeypatch):
    monkeypatch.setattr(outputs.time, "perf_counter", iter([0.0, 1.0, 3.0, 5.0]).__next__)
    statistics = Statistics()
    statistics.write(result_of([detection("with_mask")] * 2, [person(1, ""), person(2, "")]), IMAGES)
    assert (statistics.frames, statistics.faces, statistics.rate) == (1, 2, 1.0)
    assert statistics.people == {"": 2}
    statistics.write(result_of([detection("with_mask")], [person(1, "with_mask")]), IMAGES)
    assert statistics.people == {"": 1, "with_mask": 1}
    assert statistics.rate == pytest.approx(1 / (0.95 * 1 + 0.05 * 2))
    statistics.write(
        result_of([detection("with_mask")], [person(3, "without_mask")], [person(1, "without_mask"), person(2, "")]), IMAGES
    )
    assert statistics.people == {"": 1, "without_mask": 2}
    assert statistics.summary(False, {}, None) == (
        "3 frames, 4 faces of 3 people (No mask 2, too brief to confirm 1); 5.0 s, 0.6 frames/s"
    )
    assert statistics.summary(True, {"dropped": 2, "corrupt": 1}, 4) == (
        "3 frames (stopped), 2 dropped, 1 corrupt, 4 faces of 3 people (No mask 2, too brief to confirm 1); "
        "4 events; 5.0 s, 0.6 frames/s"
    )


def test_summary_of_nothing():
    assert Statistics().summary(False, {}, None) == "0 frames, 0 faces of 0 people; 0.0 s, 0.0 frames/s"


def test_records(tmp_path):
    with JsonLines(tmp_path / "a.jsonl") as lines:
        FrameRecords(lines, "a.mp4").write(result_of([detection("with_mask", 0.98765, 3)], number=7), IMAGES)
    (record,) = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (record["source"], record["frame"], record["time"]) == ("a.mp4", 7, 0.7)
    assert (record["faces"][0]["track"], record["faces"][0]["box"], record["faces"][0]["probability"]) == (
        3,
        [1, 2, 11, 12],
        0.9877,
    )


@pytest.mark.parametrize(("probability", "unsure"), [(0.59, True), (0.6, False)])
def test_records_of_unsure_labels(tmp_path, probability, unsure):
    with JsonLines(tmp_path / "a.jsonl") as lines:
        FrameRecords(lines, "a.mp4").write(result_of([detection("with_mask", probability)]), IMAGES)
    assert json.loads((tmp_path / "a.jsonl").read_text())["faces"][0]["unsure"] is unsure


def test_page_shows_the_counts():
    statistics, camera = Statistics(), Camera(0, "door", threading.Condition())
    page = LivePage(camera, statistics)
    faces = [detection("without_mask"), detection("with_mask"), detection("with_mask"), detection("with_mask", 0.55)]
    result = result_of(faces, [person(1, "with_mask"), person(2, "")], number=4)
    for output in (statistics, page):
        output.write(result, IMAGES)
    state = camera.state
    assert (state.frames, state.time, state.faces, state.people) == (1, 0.4, {"Mask": 2, "No mask": 1, "Mask?": 1}, {"Mask": 1})
    page.stalled(3.5)
    assert (camera.state.stalled, camera.state.has_ended) == (3.5, False)
    page.close()
    assert camera.state.has_ended


def test_window_shows_the_rate_and_the_faces(monkeypatch):
    texts, images = [], []
    monkeypatch.setattr("facemask.video.grid.draw_status", lambda image, text: texts.append(text))
    (tile,) = Grid(images.append, ["camera 0"], captions=True).tiles
    output = WindowOutput(tile, Statistics())
    output.stalled(1.0)  # there is no image to show
    output.write(result_of([detection("with_mask")]), IMAGES)
    output.stalled(1.0)
    output.stalled(2.0)
    output.write(result_of(), IMAGES)
    assert texts == ["0 frames/s  Mask 1", "0 frames/s  Mask 1", "no image for 2 s", "0 frames/s  "]
    assert len(images) == 4


class Sink:
    """Notes the times of the frames that are written, once it may; fails at those in `failing`."""

    def __init__(self, failing: tuple[float, ...] = ()) -> None:
        self.may_write, self.failing = threading.Event(), failing
        self.times: list[float] = []
        self.threads: set[str] = set()
        self.closed = 0

    def write(self, image: np.ndarray, time: float) -> None:
        assert self.may_write.wait(20)
        self.threads.add(threading.current_thread().name)
        if time in self.failing:
            raise InputError("o.mp4: cannot be written")
        self.times.append(time)

    def close(self) -> None:
        assert self.closed == 0
        self.closed += 1


def test_video_is_encoded_in_order_on_a_thread_of_its_own():
    sink = Sink()
    with VideoFile(sink) as output:
        for number in range(3):  # one is being encoded, two wait
            output.write(result_of(number=number), IMAGES)
        assert sink.times == []
        last = threading.Thread(target=output.write, args=(result_of(number=3), IMAGES))
        last.start()
        last.join(0.1)
        assert last.is_alive()  # until there is room
        sink.may_write.set()
        last.join(20)
    assert sink.times == [0, 0.1, 0.2, 0.3] and sink.closed == 1
    assert len(sink.threads) == 1 and threading.current_thread().name not in sink.threads


@pytest.mark.parametrize("frames", [3, 9], ids=["at the end", "at a later frame"])
def test_video_that_cannot_be_encoded_is_an_error_once(frames):
    sink = Sink(failing=(0.2,))
    sink.may_write.set()
    with pytest.raises(InputError, match="cannot be written"), VideoFile(sink) as output:
        for number in range(frames):
            output.write(result_of(number=number), IMAGES)
    assert sink.closed == 1 and sink.times[:2] == [0, 0.1]
