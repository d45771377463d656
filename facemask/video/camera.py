"""Read a camera of this machine (OpenCV)."""

import math
import sys

import cv2

from facemask.errors import InputError
from facemask.video.decoder import DecodedFrame

# Ways to open a camera by its index, in order; without a row, OpenCV's own order. Media Foundation, OpenCV's first on Windows,
# needs 4 to 20 s to open some webcams: https://github.com/opencv/opencv/issues/17687. On macOS, AVFoundation alone: OpenCV's
# FFmpeg has classes of the same names as PyAV's there, so only one of them may be used.
BACKENDS = {"win32": (cv2.CAP_DSHOW, cv2.CAP_ANY), "darwin": (cv2.CAP_AVFOUNDATION,)}
REMEDIES = {"darwin": "allow the terminal to use it (System Settings, Privacy & Security, Camera) and start again, or try -i 1"}
REMEDY = "plug it in, try -i 1, or give a video: -i FILE"


def open_camera(source: int | str, platform: str) -> cv2.VideoCapture:
    """Open a camera by an index or a device file, on a `sys.platform`; the caller checks whether it is open."""
    if isinstance(source, str) or platform not in BACKENDS:
        return cv2.VideoCapture(source)
    for backend in BACKENDS[platform]:
        capture = cv2.VideoCapture(source, backend)
        if capture.isOpened():
            break
    return capture


def needs_main_thread(platform: str) -> bool:
    """Return whether the main thread alone may open cameras, on a `sys.platform`.

    On macOS the system asks for permission there: https://github.com/opencv/opencv/issues/16427
    """
    return platform == "darwin"


class CameraReader:
    """A camera, by its index or its device file; its frames have no times."""

    has_sound = False

    def __init__(self, source: int | str, name: str, width: int | None) -> None:
        """Open the camera and ask it for `width` px; messages call it `name`. Raises InputError if it cannot be opened."""
        self._capture = open_camera(source, sys.platform)
        if not self._capture.isOpened():
            raise InputError(f"{name}: cannot be opened; {REMEDIES.get(sys.platform, REMEDY)}")
        if width:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) else 0.0  # frames per second; 0 if unknown
        self.width, self.height = (
            round(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )

    def read(self, wanted: bool = True) -> DecodedFrame | None:
        """Return the next frame, with its image if it is `wanted`; None if the camera returns none."""
        try:
            is_read, image = self._capture.read()
        except cv2.error:
            return None
        return DecodedFrame(None, image if wanted else None) if is_read else None

    def close(self) -> None:
        self._capture.release()
