"""Windows: whether there can be one, and the images shown in it."""

import os
import subprocess
import sys

import cv2

from facemask.drawing import draw_status
from facemask.errors import InputError

TRIAL_TIME = 10.0  # s for a window to open

WINDOW = "Face masks"
LARGEST_WINDOW = 1280  # px wide, as it opens
STALE = 2.0  # s without a picture, after which the window says so


def has_display() -> bool:
    """Tell whether a window can be opened: there is a screen that answers, and OpenCV was built with windows."""
    if "NONE" in next((line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line), "NONE"):
        return False
    if not sys.platform.startswith("linux"):
        return True
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    # Of a screen that is named but does not answer Qt makes an end of the process, so another one tries.
    trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial')"]
    try:
        return subprocess.run(trial, capture_output=True, timeout=TRIAL_TIME).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def window_is_open(name: str) -> bool:
    """Tell whether OpenCV's window of that name is there still."""
    try:
        return cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # Qt's, once the last window is closed
        return False


def wants_window(show: bool | None) -> bool:
    """Tell whether to open a window. Raises InputError if one is asked for where none can be."""
    if show and not has_display():
        raise InputError("--show: there is no display, or OpenCV has no windows (opencv-python-headless); leave --show away")
    return has_display() if show is None else show


def show_picture(image) -> bool:
    """Show a picture until a key is pressed or the window closed; return False if q, Esc or closing ends the showing."""
    cv2.imshow(WINDOW, image)
    while (key := cv2.waitKey(50)) < 0:  # a short wait, so that Ctrl-C is heard
        if not window_is_open(WINDOW):
            return False
    return key & 0xFF not in (ord("q"), 27)


class Window:
    """A window on the video, which can be made larger and keeps the picture's shape."""

    def __init__(self) -> None:
        self._picture, self._text = None, ""

    def show(self, picture, text: str) -> bool:
        """Show a picture with a line of text; return False once q or Esc is pressed or the window is closed."""
        if self._picture is None:
            cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            scale = min(LARGEST_WINDOW / picture.shape[1], 1)
            cv2.resizeWindow(WINDOW, round(scale * picture.shape[1]), round(scale * picture.shape[0]))
        self._picture, self._text = picture, text
        return self._put(text)

    def say_silent(self, seconds: float) -> bool:
        """Say over the last picture for how long there has been none; returns as `show` does."""
        return self._picture is None or self._put(f"no picture for {seconds:.0f} s" if seconds >= STALE else self._text)

    def _put(self, text: str) -> bool:
        picture = self._picture
        if text:
            picture = picture.copy()
            draw_status(picture, text)
        cv2.imshow(WINDOW, picture)
        key = cv2.waitKey(1) & 0xFF
        return key not in (ord("q"), 27) and window_is_open(WINDOW)
