"""What all sources of a run share: events of each reach all who want them, and images are made only for those who use them."""

import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from facemask.types import Detection, FrameResult, Track
from facemask.video.events import CommandRunner, EventRecorder
from facemask.video.frame_images import FrameImages
from facemask.video.live_server import LiveServer
from facemask.video.outputs import Statistics
from facemask.video.services import Services

LABELS = ["mask_weared_incorrect", "with_mask", "without_mask"]
NO_MASK = (0, 94, 213)  # BGR


def source(name: str, is_live: bool = False) -> SimpleNamespace:
    return SimpleNamespace(name=name, is_live=is_live)


def show(outputs: list, label: str = "without_mask") -> None:
    """Pass a frame with one confirmed person to outputs, and close them."""
    face = Detection((40, 60, 80, 110), 0.9, label, 0.9, {label: 0.9}, 1)
    person = Track(1, 0.0, 1.0, 5, label, {label: 0.9}, True, label, face.box, 0.0)
    result = FrameResult(0, 0.0, [face], [person], [], [])
    images = FrameImages(np.full((200, 240, 3), 90, np.uint8), result)
    for output in outputs:
        output.write(result, images)
    for output in reversed(outputs):
        output.close()


def test_events_of_several_sources_in_one_file(tmp_path):
    with Services(events=tmp_path / "e.jsonl") as services:
        for name in ("door", "till"):
            outputs, recorder = services.outputs_of(source(name), "", LABELS, Statistics())
            show(outputs)
            assert recorder.count == 2
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [(event["source"], event["event"]) for event in events] == [
        (name, kind) for name in ("door", "till") for kind in ("confirmed", "ended")
    ]


def test_nothing_makes_events_where_nothing_receives_them():
    with Services() as services:
        assert services.outputs_of(source("door"), "", LABELS, Statistics()) == ([], None)


def test_page_shows_the_person_of_an_event():
    statistics = Statistics()
    with LiveServer("127.0.0.1", 0) as server, Services(server=server) as services:
        outputs, _ = services.outputs_of(source("door"), "", LABELS, statistics)
        show(outputs)
        ended, confirmed = server.state()["events"]
        assert (confirmed["event"], confirmed["source"], confirmed["label"]) == ("confirmed", "door", "No mask")
        assert (ended["event"], ended["snapshot"]) == ("ended", False)
        snapshot = cv2.imdecode(np.frombuffer(server.snapshot(confirmed["id"]), np.uint8), cv2.IMREAD_COLOR).astype(int)
        assert (np.abs(snapshot[70:100, 30:46] - NO_MASK).max(axis=2) < 60).sum() > 4 * 30  # the strong box
        (camera,) = server.state()["cameras"]
        assert (camera["name"], camera["faces"], camera["has_ended"]) == ("door", {"No mask": 1}, True)


@pytest.mark.parametrize(
    ("arguments", "is_drawn"),
    [({}, False), ({"snapshots": True}, True), ({"page": True}, True)],
    ids=["file", "snapshots", "page"],
)
def test_images_are_made_for_those_who_use_them(tmp_path, monkeypatch, arguments, is_drawn):
    drawn = []
    monkeypatch.setattr(FrameImages, "marked", lambda self, track: drawn.append(track) or np.zeros((4, 6, 3), np.uint8))
    server = LiveServer("127.0.0.1", 0) if "page" in arguments else None
    snapshots = tmp_path if "snapshots" in arguments else None
    with Services(events=tmp_path / "e.jsonl", snapshots=snapshots, server=server) as services:
        show(services.outputs_of(source("door"), "", LABELS, Statistics())[0])
    if server:
        server.__exit__()
    assert (drawn == [1]) is is_drawn


def test_model_without_the_class_of_masks_is_said_once(tmp_path, caplog):
    with Services(events=tmp_path / "e.jsonl") as services:
        for name in ("door", "till"):
            services.outputs_of(source(name), "", ["a", "b"], Statistics())
    assert caplog.messages == ["the model has no class with_mask: every label is an event"]


def test_the_end_waits_less_after_a_signal():
    with Services(on_event=f"'{sys.executable}' -c pass") as services:
        outputs, recorder = services.outputs_of(source("door"), "", LABELS, Statistics())
        assert isinstance(recorder, EventRecorder) and outputs == [recorder]
        assert services._workers[0].exit_timeout == CommandRunner.EXIT_TIMEOUT
        services.hurry()
        assert services._workers[0].exit_timeout == CommandRunner.EXIT_TIMEOUT_ON_SIGNAL
