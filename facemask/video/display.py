"""Show images in a window, where there is a display."""

import ctypes
import ctypes.util
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import cv2
import numpy as np

from facemask.errors import InputError

TRIAL_TIMEOUT = 10.0  # s for a window to open

WINDOW = "Face masks"
SMALLEST_SCREEN = (1280, 720)  # px
SCREEN_SHARE = 0.85  # of the screen's sides that a window takes at most when it opens: bars and frames take the rest
MIN_WINDOW_SIDE = 480  # px, of the longest side of a small image's window


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


def screen_size() -> tuple[int, int]:
    """Return the width and height of the screen in px, of the usual smallest one if they are not known."""
    size = (0, 0)
    with suppress(Exception):  # a library or a screen is missing
        if sys.platform == "win32":
            metrics = ctypes.windll.user32.GetSystemMetrics
            size = metrics(0), metrics(1)
        elif sys.platform == "darwin":
            graphics = ctypes.CDLL(ctypes.util.find_library("CoreGraphics"))
            screen = graphics.CGMainDisplayID()
            size = graphics.CGDisplayPixelsWide(screen), graphics.CGDisplayPixelsHigh(screen)
        else:
            size = _x11_screen_size()
    width, height = size if min(size) > 0 else SMALLEST_SCREEN
    return min(width, height * 16 // 9), height  # X11 counts two screens side by side as one


def _x11_screen_size() -> tuple[int, int]:
    x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    if not display:
        return 0, 0
    screen = x11.XDefaultScreen(display)
    size = x11.XDisplayWidth(display, screen), x11.XDisplayHeight(display, screen)
    x11.XCloseDisplay(display)
    return size


def window_size(width: int, height: int, screen: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height of the window for an image of `width` x `height` px: its shape, within the screen's size.

    Small images are enlarged, so that their labels can be read.
    """
    fitting = min(SCREEN_SHARE * screen[0] / width, SCREEN_SHARE * screen[1] / height)
    scale = min(fitting, max(1, MIN_WINDOW_SIDE / max(width, height)))
    return max(1, round(scale * width)), max(1, round(scale * height))


def open_window(width: int, height: int) -> None:
    """Open the window, which can be resized and keeps the shape, for images of `width` x `height` px, or adapt its size."""
    cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(WINDOW, *window_size(width, height, screen_size()))


def show_image(image: np.ndarray) -> bool:
    """Show an image until a key is pressed or the window is closed; return False after q, Esc or closing."""
    open_window(image.shape[1], image.shape[0])
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
            open_window(image.shape[1], image.shape[0])
        cv2.imshow(WINDOW, image)
        key = cv2.waitKey(1) & 0xFF
        self._is_open = key not in (ord("q"), 27) and window_is_open(WINDOW)
        if self.is_closed:
            self.on_close()
