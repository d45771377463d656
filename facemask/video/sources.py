"""Read frames of files, pictures, cameras and streams."""

import glob
import logging
import math
import queue
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from facemask.errors import InputError
from facemask.io.find_images import IMAGE_SUFFIXES, find_images
from facemask.io.images import MAX_PIXELS, read_image
from facemask.types import Frame

DEFAULT_RATE = 25.0  # frames per second, for sources that state none
LOWEST_RATE, HIGHEST_RATE = 0.01, 240.0  # frames per second; beyond, what is stated is a container's time base, no rate
LARGEST_DENOMINATOR = 1001  # of rates as broadcasters have them: 30000/1001
STANDARD_INPUT = "-"
MOTION_JPEG = cv2.VideoWriter.fourcc(*"MJPG")
SILENCE = 4.0  # s without a picture, after which it is said
TICK = 0.2  # s between two looks whether there is one
PLACE_OF_NUMBER = re.compile(r"%0?\d*d")  # in the name of a sequence of pictures, as in frame_%04d.jpg

logger = logging.getLogger(__name__)


class VideoSource(AbstractContextManager, ABC):
    """Something that gives frames; `frames()` may be walked once."""

    is_live = False  # gives the newest frame, and may come back when it has dropped

    def __init__(self, name: str, rate: float, width: int | None, stride: int) -> None:
        """`rate` is in frames per second, as stated: other than finite and sensible means unknown (`states_rate`)."""
        self.name = name
        self.states_rate = math.isfinite(rate) and LOWEST_RATE <= rate <= HIGHEST_RATE
        self.rate = Fraction(rate if self.states_rate else DEFAULT_RATE).limit_denominator(LARGEST_DENOMINATOR)
        self.frame_count: int | None = None  # to be expected, strides counted
        self.duration: float | None = None  # s, as a file states it
        self.left_out = 0  # frames that could not be used, or not be waited for
        self.given_rate = self.rate / stride  # frames per second that are given
        self._width, self._stride = width, stride
        self._stopped = threading.Event()

    @abstractmethod
    def frames(self, on_silence: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        """Yield the frames in order.

        While a live source is silent `on_silence` is called a few times a second, with the seconds since its last frame.
        """

    def stop(self) -> None:
        """Have `frames()` end at its next step; may be called from a signal handler or another thread."""
        self._stopped.set()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _fit(self, image: np.ndarray) -> np.ndarray:
        """Return `image` scaled down to the width asked for, if it is wider."""
        if self._width is None or image.shape[1] <= self._width:
            return image
        height = max(round(image.shape[0] * self._width / image.shape[1]), 1)
        return cv2.resize(image, (self._width, height), interpolation=cv2.INTER_AREA)


def open_source(
    source: str,
    width: int | None = None,
    stride: int = 1,
    rate: float | None = None,
    patience: float = math.inf,
    max_pixels: int = MAX_PIXELS,
) -> VideoSource:
    """Open a camera (its index, as "0"), a video file, pictures (a folder, glob or frame_%04d.jpg), a URL, or "-".

    "-" is standard input, in any format that FFmpeg tells by its beginning, as motion JPEG. Frames are scaled down to
    `width` px, of which a camera is asked as well; only every `stride`-th is given. `rate`, in frames per second, is that
    of pictures, of standard input and of what states none. A live source that has dropped is opened again for `patience` seconds.
    Raises InputError if it cannot be opened, or its frames have more than `max_pixels`.
    """
    path = Path(source)
    is_remote = "://" in source
    are_pictures = path.suffix.lower() in IMAGE_SUFFIXES or (glob.has_magic(source) and not path.exists())
    if path.is_dir() or (are_pictures and not is_remote):
        return PictureSource(source, rate or DEFAULT_RATE, width, stride, max_pixels)
    is_camera = source.isdecimal() and int(source) < 1000
    if not (is_camera or is_remote or source == STANDARD_INPUT or path.is_char_device() or path.is_fifo() or path.is_file()):
        raise InputError(f"{source}: no such video; give a file, a stream's URL, or a camera's index (0 is the first)")
    name = f"camera {source}" if is_camera else "standard input" if source == STANDARD_INPUT else without_secrets(source)
    opener = CaptureOpener(int(source) if is_camera else source, width)
    is_pipe = source == STANDARD_INPUT or path.is_fifo()
    capture = opener.open_in_thread() if is_pipe else opener.open()
    if not capture.isOpened():
        if is_camera:
            raise InputError(f"{name}: cannot be opened; plug it in, try -i 1, or give a video: -i FILE")
        raise InputError(f"{name}: cannot be opened as a video; check that it is one and plays elsewhere")
    columns, rows = (round(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if columns * rows > max_pixels:
        raise InputError(f"{name}: {columns} x {rows} pixels a frame are more than {max_pixels}; give --max-pixels more")
    stated = capture.get(cv2.CAP_PROP_FPS)
    # Of motion JPEG in a pipe, which has neither rate nor times, FFmpeg makes up both.
    is_made_up = rate is not None and is_pipe and capture.get(cv2.CAP_PROP_FOURCC) == MOTION_JPEG
    if rate is not None and (is_made_up or not LOWEST_RATE <= stated <= HIGHEST_RATE):
        stated = rate
    has_end = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    if is_camera or path.is_char_device() or (is_remote and not has_end):
        return LiveSource(name, stated, width, stride, capture, opener, patience)
    kind = PipeSource if is_pipe else FileSource
    return kind(name, stated, width, stride, capture, not is_made_up)


def without_secrets(source: str) -> str:
    """Return a source as messages may name it: a URL without user, password and settings, where cameras take passwords too."""
    if "://" not in source:
        return source
    return re.sub(r"/[^/]*=.*", "/…", re.sub(r"//.*@", "//", re.sub(r"\?.*", "?…", source)))


@dataclass(frozen=True)
class CaptureOpener:
    """Opens OpenCV's capture of one source, again and again."""

    CONNECT = 10.0  # s that a stream is given to be opened: FFmpeg watches some for five before it knows them
    STALL = 3.5  # s that it is given for a picture

    source: str | int
    width: int | None

    def open(self) -> cv2.VideoCapture:
        """Return the capture, which may not be opened."""
        if isinstance(self.source, int):
            capture = cv2.VideoCapture(self.source)
            if self.width:
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.width)
            return capture
        if "://" in self.source:
            limits = {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: self.CONNECT, cv2.CAP_PROP_READ_TIMEOUT_MSEC: self.STALL}
            numbers = [number for which, seconds in limits.items() for number in (which, int(1000 * seconds))]
            return cv2.VideoCapture(self.source, cv2.CAP_FFMPEG, numbers)
        if self.source == STANDARD_INPUT:
            return cv2.VideoCapture("pipe:0")
        capture = cv2.VideoCapture(str(Path(self.source).absolute()))  # absolute as in VideoSink
        if self.width and Path(self.source).is_char_device():
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.width)
        return capture

    def open_in_thread(self) -> cv2.VideoCapture:
        """Do the same so that Ctrl-C is heard meanwhile."""
        opened: list[cv2.VideoCapture] = []
        thread = threading.Thread(target=lambda: opened.append(self.open()), name="opener", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
        return opened[0]


class FileSource(VideoSource):
    """A video that has an end: every frame is given, in order, at the time that the file states, or by the rate."""

    def __init__(
        self, name: str, rate: float, width: int | None, stride: int, capture: cv2.VideoCapture, has_times: bool = True
    ) -> None:
        """`has_times` is whether the file's own times are right: of motion JPEG FFmpeg makes them up, 25 a second."""
        super().__init__(name, rate, width, stride)
        self._capture, self._has_times = capture, has_times
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if stated > 0:
            self.frame_count = math.ceil(stated / stride)
            self.duration = float(stated / self.rate)

    def frames(self, on_silence: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        first = last = None
        for number in count():
            if self._stopped.is_set() or not self._capture.grab():
                return
            position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            first = position if first is None else first
            after = position - first
            if not self._has_times:
                after = float(number / self.rate)
            elif last is not None and not last < after < math.inf:  # raw streams have none, broken files some that do not grow
                after = last + 1 / float(self.rate)
            last = after
            if number % self._stride == 0:
                done, image = self._capture.retrieve()
                if done:
                    yield Frame(number, after, self._fit(image))
                else:
                    self.left_out += 1

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._capture.release()


class PipeSource(FileSource):
    """Standard input or a FIFO: read on a thread of its own, for nothing ends a wait for what a pipe may never bring."""

    AHEAD = 4  # frames read before they are taken

    def frames(self, on_silence: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        waiting: queue.Queue[Frame | Exception | None] = queue.Queue(self.AHEAD)

        def read() -> None:
            try:
                for frame in super(PipeSource, self).frames():
                    waiting.put(frame)
                waiting.put(None)
            except Exception as error:  # the other thread's to raise
                waiting.put(error)

        threading.Thread(target=read, name="source", daemon=True).start()
        last, said = time.monotonic(), False
        while not self._stopped.is_set():
            try:
                frame = waiting.get(timeout=TICK)
            except queue.Empty:
                silence = time.monotonic() - last
                on_silence(silence)
                if silence >= SILENCE and not said:
                    logger.warning("%s: no picture for %.0f s; waiting", self.name, silence)
                    said = True
                continue
            if isinstance(frame, Exception):
                raise frame
            if frame is None:
                return
            yield frame
            last, said = time.monotonic(), False

    def __exit__(self, *_: object) -> None:
        self.stop()  # the thread may be in a read that does not end: it is left, and the capture with it


class PictureSource(VideoSource):
    """Pictures as frames, in the order of the numbers in their names; one that cannot be read is left out, with a warning."""

    def __init__(self, source: str, rate: float, width: int | None, stride: int, max_pixels: int = MAX_PIXELS) -> None:
        """Raises InputError if there is none."""
        super().__init__(source, rate, width, stride)
        if PLACE_OF_NUMBER.search(source):
            parts = [glob.escape(part) for part in PLACE_OF_NUMBER.split(source)]
            if not glob.glob("[0-9]*".join(parts)):
                raise InputError(f"{source}: no file matches; check the pattern")
            source = "[0-9]*".join(parts)
        self._max_pixels = max_pixels
        self._paths = sorted(find_images([source]), key=_by_numbers)[::stride]
        self.frame_count = len(self._paths)

    def frames(self, on_silence: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            if self._stopped.is_set():
                return
            try:
                image = read_image(path, self._max_pixels)
            except InputError as error:
                if len(self._paths) == 1:
                    raise
                logger.warning("%s", error)
                self.left_out += 1
                continue
            number = index * self._stride
            yield Frame(number, float(number / self.rate), self._fit(image))


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


class LiveSource(VideoSource):
    """A camera or stream, read on a thread of its own: the newest frame is given, and what nobody waited for is dropped.

    Times are those of arrival. When it drops it is opened again, with growing waits, until `patience` seconds have passed.
    """

    is_live = True
    FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # s, before it is opened again

    def __init__(
        self,
        name: str,
        rate: float,
        width: int | None,
        stride: int,
        capture: cv2.VideoCapture,
        opener: CaptureOpener,
        patience: float,
    ) -> None:
        super().__init__(name, rate, width, stride)
        self._capture, self._opener, self._patience = capture, opener, patience
        self._newest: Frame | None = None  # its number and time since the source was opened
        self._changed = threading.Condition()
        self._lost = self._ended = False
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    def frames(self, on_silence: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        first, self.left_out = None, 0
        last, said = time.monotonic(), False
        while not self._stopped.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._ended, TICK)
                frame, self._newest = self._newest, None
            if frame is not None:
                first = frame if first is None else first
                yield Frame(frame.number - first.number, frame.time - first.time, frame.image)
                last, said = time.monotonic(), False
            elif self._ended:
                return
            else:
                silence = time.monotonic() - last
                on_silence(silence)
                if silence >= SILENCE and not said and not self._lost:
                    logger.warning("%s: no picture for %.0f s; waiting", self.name, silence)
                    said = True

    def _read(self) -> None:
        try:
            self._read_on()
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read_on(self) -> None:
        start, last, wait = None, time.monotonic(), self.FIRST_WAIT
        number = 0
        while not self._stopped.is_set():
            try:
                more, image = self._capture.read()
            except cv2.error:
                more = False
            now = time.monotonic()
            if more:
                if self._lost:
                    logger.info("%s: back after %.1f s", self.name, now - last)
                    self._lost, wait = False, self.FIRST_WAIT
                start = now if start is None else start
                last = now
                if number % self._stride == 0:
                    self._give(Frame(number, now - start, self._fit(image)))
                number += 1
                continue
            self._capture.release()
            if self._stopped.is_set() or now - last >= self._patience:
                return
            if self._lost:
                what = f"still away after {now - last:.0f} s"
            else:
                stalled = now - last >= self._opener.STALL / 2
                what = f"no picture for {now - last:.1f} s" if stalled else "the connection is lost"
            wait = min(wait, last + self._patience - now)
            logger.warning("%s: %s; opening it again in %.2g s", self.name, what, wait)
            self._lost = True
            if self._stopped.wait(wait):
                return
            wait = min(2 * wait, self.LONGEST_WAIT)
            self._capture = self._opener.open()

    def _give(self, frame: Frame) -> None:
        with self._changed:
            self.left_out += self._newest is not None
            self._newest = frame
            self._changed.notify_all()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._thread.join(self._opener.STALL + 1)  # a read that hangs ends by its time limit
