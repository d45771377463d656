"""Read a camera of this machine (OpenCV)."""

import math

import cv2

from facemask.errors import InputError
from facemask.video.decoder import DecodedFrame


class CameraReader:
    """A camera, by its index or its device file; its frames have no times."""

    has_sound = False

    def __init__(self, source: int | str, name: str, width: int | None) -> None:
        """Open the camera and ask it for `width` px; messages call it `name`. Raises InputError if it cannot be opened."""
        self._capture = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            raise InputError(f"{name}: cannot be opened; plug it in, try -i 1, or give a video: -i FILE")
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
