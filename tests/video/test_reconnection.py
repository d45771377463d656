"""A live source that stalls or is away: when that is reported, and how long it waits before it is opened again."""

import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest

import detect_mask_video
from facemask.errors import InputError
from facemask.video.camera import CameraReader
from facemask.video.decoder import DecodedFrame
from facemask.video.sources import LiveSource
from tests.helpers import Camera


class Reader:
    """A camera that gives one frame; what it does then is `then`, and after that it has dropped."""

    rate, has_sound = 25.0, False

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.reads, self.then = 0, then

    def read(self, wanted: bool = True) -> DecodedFrame | None:
        self.reads += 1
        if self.reads > 1:
            self.then()
            return None
        return DecodedFrame(None, np.zeros((4, 4, 3), np.uint8))

    def close(self) -> None:
        pass


def live_source(reader: Reader) -> LiveSource:
    """Return a source that cannot be opened again."""

    def open_reader() -> Reader:
        raise InputError("still away")

    return LiveSource("camera 0", 25.0, None, 1, reader, open_reader, float("inf"))


def test_waits_before_a_source_is_opened_again(monkeypatch):
    """1, 2, 4 seconds and so on, half a minute at most."""
    waits, wait = [], threading.Event.wait

    def record(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread().name != "source" or timeout is None:
            return wait(event, timeout)
        waits.append(timeout)
        return len(waits) == 8  # as if it were stopped

    monkeypatch.setattr(threading.Event, "wait", record)
    with live_source(Reader()) as source:
        assert len(list(source.frames())) == 1
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_stall_is_reported_once_after_four_seconds(monkeypatch, caplog):
    """By a clock that runs five times as fast."""
    clock, stalls, stopped = time.monotonic, [], threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: 5 * clock())

    def note(seconds: float) -> None:
        stalls.append(seconds)
        if seconds > 7:
            source.stop()
            stopped.set()

    with live_source(Reader(stopped.wait)) as source:
        assert len(list(source.frames(note))) == 1
    reported = next(seconds for seconds in stalls if seconds >= 4)
    assert caplog.messages == [f"camera 0: no frame for {reported:.0f} s; waiting"]
    assert [seconds for seconds in stalls if seconds < 4]  # when nothing was reported


def test_a_live_source_that_stays_away_is_a_failure(capsys):
    """Its end is not the end of a file: exit code 1."""
    with Camera([np.full((64, 64, 3), 90, np.uint8)] * 5, 20) as camera:
        assert detect_mask_video.main(["-i", camera.url, "--reconnect", "0"]) == 1
    assert f"[WARN] {camera.url} has ended; start again when it is back\n" in capsys.readouterr().err


@pytest.mark.parametrize("width", [None, 640])
def test_a_camera_is_asked_for_the_width(monkeypatch, width):
    asked = []

    class Capture:
        isOpened = release = lambda self: True
        get = lambda self, which: 30.0  # noqa: E731

        def set(self, which: int, value: float) -> None:
            asked.append((which, value))

    monkeypatch.setattr(cv2, "VideoCapture", lambda source, *backend: Capture())
    CameraReader(0, "camera 0", width).close()
    assert asked == ([(cv2.CAP_PROP_FRAME_WIDTH, width)] if width else [])
