"""How long the end of a video waits for the commands of --on-event: a minute, and less once a signal has come."""

import logging
import os
import signal
import threading
from pathlib import Path

import cv2
import pytest

import detect_mask_video
from facemask.models.center_face import CenterFaceDetector
from facemask.types import Event
from facemask.video.events import CommandRunner


def until_there_is(path: Path) -> str:
    """Return a command that ends once there is a file of that name."""
    return f"sh -c 'until [ -e {path} ]; do sleep 0.01; done'"


def test_the_end_waits_a_minute_for_commands(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with CommandRunner(until_there_is(tmp_path / "go")) as command:
        command.submit(Event({}))
        threading.Timer(0.1, (tmp_path / "go").touch).start()
    assert caplog.messages == ["--on-event: 1 events to go for sh, 60 s at most", "--on-event: sh: 1 events handled"]


def test_a_command_has_a_minute(monkeypatch):
    """It is run with that limit."""
    limits, ran = [], threading.Event()

    def run(arguments: list[str], *, timeout: float, **_: object) -> None:
        limits.append(timeout)
        ran.set()
        raise OSError(0, "not run")

    monkeypatch.setattr("subprocess.run", run)
    with CommandRunner("sh") as command:
        command.submit(Event({}))
        assert ran.wait(10)
    assert limits == [60]


@pytest.mark.parametrize(("stops", "code", "seconds"), [(False, 0, 60), (True, 143, 8)], ids=["to the end", "SIGTERM"])
def test_the_end_waits_less_once_a_signal_has_come(video, monkeypatch, stops, code, seconds):
    detect, leave, waits = CenterFaceDetector.detect, CommandRunner.__exit__, []

    def stop(self, *arguments):
        if stops and not waits:
            os.kill(os.getpid(), signal.SIGTERM)
            waits.append(None)
        return detect(self, *arguments)

    def note(self, *error):
        waits[:] = [self.exit_timeout]
        return leave(self, *error)

    monkeypatch.setattr(cv2, "getNumberOfCPUs", lambda: 1)
    monkeypatch.setattr(CenterFaceDetector, "detect", stop)
    monkeypatch.setattr(CommandRunner, "__exit__", note)
    assert detect_mask_video.main(["-i", str(video), "--on-event", "sh"]) == code
    assert waits == [seconds]
