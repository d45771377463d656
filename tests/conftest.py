"""What all tests use: fixtures, settings of Hypothesis, and no windows."""

import os
import signal
from pathlib import Path

from facemask.cli.run import quiet_libraries

quiet_libraries()  # as a script does, before OpenCV is imported

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

pytest.register_assert_rewrite("tests.helpers", "tests.faults.fault_table")  # so that their asserts show the values

from tests.helpers import EXAMPLES, SHARED  # noqa: E402

if os.environ.get("FUZZ"):
    settings.register_profile("fuzz", max_examples=2000, deadline=None)
    settings.load_profile("fuzz")
elif not os.environ.get("CI"):  # there Hypothesis repeats its examples, without deadlines, by itself
    settings.register_profile("calm", deadline=None)  # a busy machine is no error
    settings.load_profile("calm")


# A shell's background jobs ignore Ctrl-C, and nohup the end of a terminal: here, and in each process that a test starts.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (getattr(signal, "SIGHUP", None), signal.SIG_DFL)):
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever machine the tests run on, no window opens."""
    monkeypatch.setattr("facemask.video.display.has_display", lambda: False)


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared is absent: its photos are not part of the repository")
    return SHARED


@pytest.fixture
def astronaut() -> np.ndarray:
    return cv2.imread(str(EXAMPLES / "astronaut.jpg"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twelve frames of 160x120 at 29.97 frames per second; the grey level of frame n is 20 n."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30000 / 1001, (160, 120))
    for number in range(12):
        writer.write(np.full((120, 160, 3), 20 * number, np.uint8))
    writer.release()
    return path
