"""Show images in a window, where there is a display."""

import os
import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np

from facemask.errors import InputError

TRIAL_TIMEOUT = 10.0  # s for a window to open

WINDOW = "Face masks"
MAX_WINDOW_WIDTH = 1280  # px, when it opens


def has_display() -> bool:
    """Return whether a window can be opened: a display answers, and OpenCV was built with windows."""
    if "NONE" in next((line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line), "NONE"):
        return False
    if not sys.platform.startswith("linux"):
        return True
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    # If a display is named but does not answer, Qt ends the process, so another process tries.
    trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial')"]
    try:
        return subprocess.run(trial, capture_output=True, timeout=TRIAL_TIMEOUT).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def window_is_open(name: str) -> bool:
    """Return whether OpenCV's window of that name is still open."""
    try:
        return cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # Qt's, once the last window is closed
        return False


def wants_window(show: bool | None) -> bool:
    """Return whether to open a window; None: if there is a display. Raises InputError if one is asked for and cannot open."""
    if show and not has_display():
        raise InputError("--show: there is no display, or OpenCV has no windows (opencv-python-headless); omit --show")
    return has_display() if show is None else show


def show_image(image: np.ndarray) -> bool:
    """Show an image until a key is pressed or the window is closed; return False after q, Esc or closing."""
    cv2.imshow(WINDOW, image)
    while (key := cv2.waitKey(50)) < 0:  # a short wait, so that Ctrl-C is handled
        if not window_is_open(WINDOW):
            return False
    return key & 0xFF not in (ord("q"), 27)


class Window:
    """A window for a video; it can be made larger and keeps the aspect ratio."""

    def __init__(self) -> None:
        self.on_close: Callable[[], None] = lambda: None  # called once q or Esc is pressed in the window, or it is closed
        self._is_open: bool | None = None  # None before the first image

    @property
    def is_closed(self) -> bool:
        """Return whether it was opened and is not open any more."""
        return self._is_open is False

    def show(self, image: np.ndarray) -> None:
        """Show `image`, uint8 (H, W, 3) BGR."""
        if self.is_closed:
            return
        if self._is_open is None:
            cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            scale = min(MAX_WINDOW_WIDTH / image.shape[1], 1)
            cv2.resizeWindow(WINDOW, round(scale * image.shape[1]), round(scale * image.shape[0]))
        cv2.imshow(WINDOW, image)
        key = cv2.waitKey(1) & 0xFF
        self._is_open = key not in (ord("q"), 27) and window_is_open(WINDOW)
        if self.is_closed:
            self.on_close()
