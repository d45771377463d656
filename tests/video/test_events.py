import json
import logging
import queue
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import replace

import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.io.json_lines import JsonLines
from facemask.types import Event, FrameResult, Track
from facemask.video.events import CommandRunner, EventRecorder, split_command
from facemask.video.frame_images import FrameImages

IMAGE = np.full((40, 60, 3), 90, np.uint8)
IMAGES = FrameImages(IMAGE, FrameResult(0, 0.0, [], [], [], []))
ALERT = ("without_mask", "mask_weared_incorrect")
WAIT = 20  # s, for what happens in another process


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def person(label="without_mask", confirmed=True, id=1, last=2.5, confirmed_label=None):
    probabilities = {label: 0.87654, "other": 0.12346}
    confirmed_label = label if confirmed else confirmed_label or ""
    return Track(id, 1.0, last, 30, label, probabilities, confirmed, confirmed_label, (1, 2, 3, 4), 1.23456)


def result_of(tracks, ended=()) -> FrameResult:
    return FrameResult(0, 0.0, [], tracks, [], list(ended))


def record(tmp_path, frames, close=True, **arguments):
    """Return the events of frames, each (tracks, ended)."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path) as file:
        recorder = EventRecorder(ALERT, "camera 0", [lambda event: file.write(event.record)], **arguments)
        for tracks, ended in frames:
            recorder.write(result_of(tracks, ended), IMAGES)
        if close:
            recorder.close()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert recorder.count == len(events)
    return events


def test_confirmed_once_and_ended(tmp_path):
    events = record(tmp_path, [([person(confirmed=False)], [])] + [([person()], [])] * 3 + [([], [person(last=9.0)])])
    assert events == [
        {
            "event": event,
            "source": "camera 0",
            "track": 1,
            "label": "without_mask",
            "probability": 0.8765,
            "unsure": False,
            "first_time": 1.0,
            "last_time": last,
            "frames": 30,
            "best_box": [1, 2, 3, 4],
            "best_time": 1.2346,
        }
        for event, last in (("confirmed", 2.5), ("ended", 9.0))
    ]


MASKED, BARE, WRONG = person("with_mask"), person("without_mask"), person("mask_weared_incorrect")


@pytest.mark.parametrize(
    ("tracks", "reported"),
    [
        pytest.param([MASKED], [], id="masked"),
        pytest.param([person(confirmed=False)], [], id="not confirmed"),
        pytest.param([WRONG], ["mask_weared_incorrect"], id="worn wrong"),
        pytest.param([BARE, WRONG, BARE], ["without_mask", "mask_weared_incorrect", "without_mask"], id="changes"),
        pytest.param([BARE, MASKED, BARE], ["without_mask", "without_mask"], id="put on and taken off"),
        pytest.param(
            [BARE, person(confirmed=False, confirmed_label="without_mask"), BARE], ["without_mask"], id="unsure meanwhile"
        ),
        pytest.param([MASKED, BARE], ["without_mask"], id="taken off"),
    ],
)
def test_labels_that_are_reported(tmp_path, tracks, reported):
    events = record(tmp_path, [([track], []) for track in tracks], close=False)
    assert [(event["event"], event["label"]) for event in events] == [("confirmed", label) for label in reported]


def test_masked_person_ends_without_an_event(tmp_path):
    assert record(tmp_path, [([MASKED], []), ([], [MASKED])]) == []


def test_tracks_that_go_on_end_with_the_video(tmp_path):
    events = record(tmp_path, [([person(id=1), person("with_mask", id=2)], []), ([person(id=1, last=4.0)], []), ([], [])])
    assert [(event["event"], event["track"], event["last_time"]) for event in events] == [
        ("confirmed", 1, 2.5),
        ("ended", 1, 4.0),
    ]


def test_label_that_is_unsure_at_the_end(tmp_path):
    """An unsure label is never confirmed, but a confirmed one may become unsure."""
    ended = replace(person(last=4.0), probabilities={"without_mask": 0.55, "other": 0.45})
    events = record(tmp_path, [([person()], []), ([], [ended])])
    assert [(event["event"], event["unsure"]) for event in events] == [("confirmed", False), ("ended", True)]


def test_several_receivers_get_each_event():
    received = [], []
    recorder = EventRecorder(ALERT, "camera 0", [received[0].append, received[1].append])
    recorder.write(result_of([person()]), IMAGES)
    assert [event.record["event"] for event in received[0]] == ["confirmed"] and received[0] == received[1]
    assert received[0][0].jpeg is None


def test_receivers_that_use_images_get_one_with_the_first_event_of_a_person():
    received = []
    recorder = EventRecorder(ALERT, "camera 0", [received.append], with_images=True)
    recorder.write(result_of([person()]), IMAGES)
    recorder.close()
    first, last = received
    assert cv2.imdecode(np.frombuffer(first.jpeg, np.uint8), cv2.IMREAD_COLOR).shape == IMAGE.shape
    assert last.jpeg is None


def test_events_of_two_people(tmp_path):
    events = record(tmp_path, [([person(id=1), person(id=2)], []), ([person(id=2)], [person(id=1)])], close=False)
    assert [(event["event"], event["track"]) for event in events] == [("confirmed", 1), ("confirmed", 2), ("ended", 1)]


@pytest.mark.parametrize("live", [False, True])
def test_snapshots(tmp_path, live):
    (tmp_path / "shots").mkdir()
    events = record(tmp_path, [([person()], []), ([], [person()])], snapshots=tmp_path / "shots", is_live=live)
    (shot,) = (tmp_path / "shots").iterdir()
    assert [event.get("snapshot") for event in events] == [str(shot), None]
    assert abs(int(cv2.imread(str(shot)).mean()) - 90) < 3
    assert [("at" in event) for event in events] == [live, live]
    if live:
        assert shot.name.endswith("-0001-without_mask.jpg")
    else:
        assert shot.name == "000002.50s-0001-without_mask.jpg"


def test_snapshots_of_several_sources(tmp_path):
    (tmp_path / "shots").mkdir()
    for prefix in ("door-", "till-"):
        record(tmp_path, [([person()], [])], close=False, snapshots=tmp_path / "shots", prefix=prefix)
        (tmp_path / "events.jsonl").unlink()
    names = sorted(path.name for path in (tmp_path / "shots").iterdir())
    assert names == [f"{prefix}000002.50s-0001-without_mask.jpg" for prefix in ("door-", "till-")]


def test_snapshots_of_two_runs(tmp_path):
    (tmp_path / "shots").mkdir()
    for _ in range(3):
        events = record(tmp_path, [([person()], [])], close=False, snapshots=tmp_path / "shots")
        (tmp_path / "events.jsonl").unlink()
    names = sorted(path.name for path in (tmp_path / "shots").iterdir())
    assert names == [f"000002.50s-0001-without_mask{number}.jpg" for number in ("-2", "-3", "")]
    assert events[0]["snapshot"] == str(tmp_path / "shots" / names[1])


@pytest.fixture
def script(tmp_path):
    """A command that adds what it gets to a file, once it may."""
    path = tmp_path / "script.py"
    path.write_text(
        "import pathlib, sys, time\n"
        "event, folder = sys.stdin.read(), pathlib.Path(sys.argv[1])\n"
        "while not (folder / 'go').exists(): time.sleep(0.01)\n"
        "with open(folder / 'got', 'a') as file: file.write(event)\n"
    )
    return f"'{sys.executable}' '{path}' '{tmp_path}'"


def test_command_gets_the_events_in_order_and_is_not_waited_for(tmp_path, script):
    with CommandRunner(script) as command:
        recorder = EventRecorder(ALERT, "camera 0", [command.submit])
        for number in range(4):
            recorder.write(result_of([person(id=number)]), IMAGES)
        assert not (tmp_path / "got").exists()  # the command runs until it may go
        (tmp_path / "go").touch()
    assert [json.loads(line)["track"] for line in (tmp_path / "got").read_text().splitlines()] == [0, 1, 2, 3]


def test_command_that_hangs_is_left_at_the_end(monkeypatch, caplog):
    monkeypatch.setattr(CommandRunner, "EXIT_TIMEOUT", 0.3)
    monkeypatch.setattr(CommandRunner, "TIME_LIMIT", 3.0)
    monkeypatch.setattr(CommandRunner, "MAX_WAITING", 2)
    with CommandRunner(f"'{sys.executable}' -c 'import time; time.sleep(60)'") as command:
        command.submit(Event({"track": 1}))
        deadline = time.monotonic() + WAIT
        while command._waiting.qsize() and time.monotonic() < deadline:
            time.sleep(0.01)
        for number in (2, 3, 4, 5):
            command.submit(Event({"track": number}))
    program = sys.executable
    assert warnings(caplog) == [
        f"--on-event: 2 events wait for {program}; more are dropped",
        f"--on-event: {program} was still busy",
        f"--on-event: {program}: 0 events handled, 5 dropped",
    ]
    with suppress(queue.Empty):  # end the thread, lest it warns while other tests listen
        while True:
            command._waiting.get_nowait()
    command._waiting.put(None)
    command._thread.join(WAIT)


@pytest.mark.parametrize(
    ("code", "limit", "message"),
    [("raise SystemExit(3)", 60.0, "ended with code 3"), ("import time; time.sleep(60)", 0.3, "took over 0 s and was ended")],
)
def test_command_that_fails(monkeypatch, caplog, code, limit, message):
    monkeypatch.setattr(CommandRunner, "TIME_LIMIT", limit)
    with CommandRunner(f"'{sys.executable}' -c '{code}'") as command:
        command.submit(Event({"track": 1}))
    program = sys.executable
    assert warnings(caplog) == [f"--on-event: {program} {message}", f"--on-event: {program}: 0 events handled, 1 failed"]


def test_command_that_does_not_read(caplog):
    with CommandRunner(f"'{sys.executable}' -c pass") as command:
        command.submit(Event({"track": "x" * 1_000_000}))
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no_such_program -x", "--on-event: no program 'no_such_program'; give its path, or put it on the PATH"),
        ("", "--on-event: no program ''; give its path, or put it on the PATH"),
        ("'a", '--on-event: "\'a" cannot be read (No closing quotation); check the quotes'),
    ],
)
def test_bad_command(command, message):
    with pytest.raises(InputError) as error:
        CommandRunner(command)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("command", "platform", "expected"),
    [
        (r'"C:\Program Files\py.exe" C:\new\on_event.py --to "a b"', "win32", [r"C:\Program Files\py.exe", r"C:\new\on_event.py", "--to", "a b"]),
        ("C:\\new\\", "win32", ["C:\\new\\"]),
        (r"my\ script.sh 'a b' \"c#d", "linux", ["my script.sh", "a b", '"c#d']),
        ("notify # all", "darwin", ["notify", "#", "all"]),
    ],
)  # fmt: skip
def test_command_keeps_the_backslashes_of_windows(command, platform, expected):
    assert split_command(command, platform) == expected
    if platform != "win32":
        assert split_command(command, platform) == shlex.split(command)
