"""A live source that is silent or away: when that is said, and how long it is waited for before it is opened again."""

import threading
import time

import cv2
import numpy as np
import pytest

import detect_mask_video
from facemask.video.sources import CaptureOpener, LiveSource
from tests.helpers import Camera


class Device:
    """What OpenCV makes of a camera: it gives one image, then none; `read` takes as long as `wait` does."""

    def __init__(self, wait=lambda: None) -> None:
        self.reads, self.wait = 0, wait

    def read(self) -> tuple[bool, np.ndarray]:
        self.reads += 1
        if self.reads > 1:
            self.wait()
        return self.reads == 1, np.zeros((4, 4, 3), np.uint8)

    def release(self) -> None:
        pass


class Away(Device):
    """A camera that cannot be opened."""

    def read(self) -> tuple[bool, None]:
        return False, None


def open_camera(monkeypatch, camera: Device) -> LiveSource:
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: Away())
    return LiveSource("camera 0", 25.0, None, 1, camera, CaptureOpener(0, None), patience=float("inf"))


def test_waits_before_a_source_is_opened_again(monkeypatch):
    """1, 2, 4 seconds and so on, half a minute at most."""
    waits, wait = [], threading.Event.wait

    def record(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread().name != "source" or timeout is None:
            return wait(event, timeout)
        waits.append(timeout)
        return len(waits) == 8  # as if it were stopped

    monkeypatch.setattr(threading.Event, "wait", record)
    with open_camera(monkeypatch, Device()) as source:
        assert len(list(source.frames())) == 1
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_silence_is_said_once_after_four_seconds(monkeypatch, caplog):
    """By a clock that runs five times as fast."""
    clock, silences, stopped = time.monotonic, [], threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: 5 * clock())

    def note(seconds: float) -> None:
        silences.append(seconds)
        if seconds > 7:
            source.stop()
            stopped.set()

    with open_camera(monkeypatch, Device(stopped.wait)) as source:
        assert len(list(source.frames(note))) == 1
    said = next(seconds for seconds in silences if seconds >= 4)
    assert caplog.messages == [f"camera 0: no picture for {said:.0f} s; waiting"]
    assert [seconds for seconds in silences if seconds < 4]  # and nothing was said then


def test_a_live_source_that_stays_away_is_a_failure(capsys):
    """Its end is not the end of a file: exit code 1."""
    with Camera([np.full((64, 64, 3), 90, np.uint8)] * 5, 20) as camera:
        assert detect_mask_video.main(["-i", camera.url, "--reconnect", "0"]) == 1
    assert f"[WARN] {camera.url} has ended; start again when it is back\n" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "width"), [(0, 640), (1, 1280)])
def test_a_camera_is_asked_for_the_width(monkeypatch, number, width):
    asked = []

    class Asked(Away):
        def __init__(self, source: int) -> None:
            asked.append(source)

        def set(self, which: int, value: float) -> None:
            asked.append((which, value))

    monkeypatch.setattr(cv2, "VideoCapture", Asked)
    CaptureOpener(number, width).open()
    assert asked == [number, (cv2.CAP_PROP_FRAME_WIDTH, width)]
