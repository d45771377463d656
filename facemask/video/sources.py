"""Read frames of files, images, cameras and streams."""

import glob
import logging
import math
import queue
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image, ImageSequence

from facemask.errors import InputError
from facemask.io.find_images import IMAGE_SUFFIXES, find_images
from facemask.io.images import MAX_PIXELS, read_image
from facemask.types import Frame
from facemask.video.camera import CameraReader
from facemask.video.decoder import MAX_RATE, MIN_RATE, DecodedFrame, VideoDecoder, check_size

DEFAULT_RATE = 25.0  # frames per second, for sources that state none
MAX_DENOMINATOR = 1001  # of rates as broadcasters have them: 30000/1001
STANDARD_INPUT = "-"
RAW_MOTION_JPEG = ("mjpeg", "jpeg_pipe")  # FFmpeg's formats that have neither rate nor times; it makes up both
OPEN_TIMEOUT = 10.0  # s for a stream to open: FFmpeg reads some for five before it knows them
READ_TIMEOUT = 3.5  # s for a stream to send the next packet
STALL = 4.0  # s without a frame, after which there is a warning
TICK = 0.2  # s between two checks whether there is a frame
MISSING_TIME = 1.0  # s of a file that are missing at its end, from which it counts as cut off
USELESS_TIME = 2.0  # s of corrupt or uniform frames, after which there is a warning
UNIFORM_DEVIATION = 2.0  # standard deviation, of 255, up to which a frame is uniform; a dark room's noise has more
UNIFORM_STEP = 8  # px between two pixels that are compared
FAULTS = {
    "corrupt": ("corrupt", "check the file or the connection"),
    "uniform": ("of one colour", "uncover the lens, or check the source"),
}
ANIMATION_DELAY = 0.1  # s that a frame of an animation is shown if its file states none, as browsers do
NUMBER_PLACE = re.compile(r"%0?\d*d")  # in the name of a sequence of images, as in frame_%04d.jpg

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """What decodes frames one by one: a `VideoDecoder` or a `CameraReader`."""

    rate: float  # frames per second; 0 if unknown

    def read(self, wanted: bool = True) -> DecodedFrame | None:
        """Return the next frame, with its image if it is `wanted`; None at the end."""

    def close(self) -> None: ...


class VideoSource(AbstractContextManager, ABC):
    """Something that gives frames; `frames()` may be walked once."""

    is_live = False  # gives the newest frame, and may come back when it has dropped

    def __init__(self, name: str, rate: float, width: int | None, stride: int) -> None:
        """`rate` is in frames per second, as stated; out of range it counts as unknown (`has_rate`)."""
        self.name = name
        self.has_rate = math.isfinite(rate) and MIN_RATE <= rate <= MAX_RATE
        self.rate = Fraction(rate if self.has_rate else DEFAULT_RATE).limit_denominator(MAX_DENOMINATOR)
        self.output_fps = self.rate / stride  # frames per second that are given
        self.frame_count: int | None = None  # to be expected, strides counted
        self.dropped_frames = 0  # that could not be read, or not be waited for
        self.quality = FrameQuality(name)
        self.fault = ""  # why the source has ended, if it should not have: a predicate
        self._width, self._stride = width, stride
        self._stopped = threading.Event()

    @property
    def losses(self) -> list[str]:
        """Return what was lost, as "3 dropped" and "2 corrupt"."""
        return ([f"{self.dropped_frames} dropped"] if self.dropped_frames else []) + self.quality.losses

    @abstractmethod
    def frames(self, on_stall: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        """Yield the frames in order.

        While a source gives no frame `on_stall` is called a few times a second, with the seconds since its last frame.
        """

    @property
    def is_stopped(self) -> bool:
        """Return whether `stop` was called."""
        return self._stopped.is_set()

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


class FrameQuality:
    """Counts corrupt and uniform frames, and warns once of a source that gives nothing else for `USELESS_TIME`."""

    def __init__(self, name: str) -> None:
        """Messages call the source `name`."""
        self.name = name
        self.corrupt_frames = 0  # repaired by the decoder, or not decoded at all
        self.uniform_frames = 0
        self._fault, self._since = "", 0.0  # of the last frame, and the time from which all have had it
        self._reported: set[str] = set()

    def add(self, time: float, image: np.ndarray | None, is_corrupt: bool) -> None:
        """Count a frame at `time` in s; `image`, uint8 (H, W, 3) BGR, is None if it was not decoded."""
        fault = "corrupt" if is_corrupt else "uniform" if image is not None and is_uniform(image) else ""
        self.corrupt_frames += fault == "corrupt"
        self.uniform_frames += fault == "uniform"
        if fault != self._fault:
            self._fault, self._since = fault, time
        if fault and fault not in self._reported and time - self._since >= USELESS_TIME:
            self._reported.add(fault)
            what, remedy = FAULTS[fault]
            logger.warning(
                "%s: all frames are %s for %g s from %.1f s on; %s", self.name, what, USELESS_TIME, self._since, remedy
            )

    @property
    def losses(self) -> list[str]:
        """Return the counts to report at the end, as "3 corrupt"; uniform frames count only if they lasted."""
        corrupt = [f"{self.corrupt_frames} corrupt"] if self.corrupt_frames else []
        return corrupt + ([f"{self.uniform_frames} of one colour"] if "uniform" in self._reported else [])


def is_uniform(image: np.ndarray) -> bool:
    """Return whether `image`, uint8 (H, W, 3), has one colour all over, as of a covered lens or a decoder that fails."""
    _, deviation = cv2.meanStdDev(np.ascontiguousarray(image[::UNIFORM_STEP, ::UNIFORM_STEP]))
    return bool(deviation.max() <= UNIFORM_DEVIATION)


def open_source(
    source: str,
    width: int | None = None,
    stride: int = 1,
    rate: float | None = None,
    timeout: float = math.inf,
    max_pixels: int = MAX_PIXELS,
) -> VideoSource:
    """Open a camera (its index, as "0"), a video file, images (a folder, glob or frame_%04d.jpg), a URL, or "-".

    "-" is standard input, in any format that FFmpeg knows by its beginning, as motion JPEG. Frames are scaled down to
    `width` px, of which a camera is asked as well; only every `stride`-th is given. `rate`, in frames per second, is used
    for images, for raw motion JPEG from a pipe and for what states none. A live source that has dropped is opened again
    for `timeout` seconds. Raises InputError if it cannot be opened, or its frames have more than `max_pixels`.
    """
    path = Path(source)
    is_remote = "://" in source
    are_images = path.suffix.lower() in IMAGE_SUFFIXES or (glob.has_magic(source) and not path.exists())
    if path.is_dir() or (are_images and not is_remote):
        if is_animation(path):
            return _with_rate_checked(AnimationSource(path, width, stride, max_pixels), rate)
        return ImageSource(source, rate or DEFAULT_RATE, width, stride, max_pixels)
    is_camera = (source.isdecimal() and int(source) < 1000) or path.is_char_device()
    if not (is_camera or is_remote or source == STANDARD_INPUT or path.is_fifo() or path.is_file()):
        raise InputError(f"{source}: no such video; give a file, a stream's URL, or a camera's index (0 is the first)")
    if is_camera:
        name = f"camera {source}"

        def open_camera() -> CameraReader:
            return CameraReader(int(source) if source.isdecimal() else source, name, width)

        camera = open_camera()
        check_size(name, camera.width, camera.height, max_pixels)
        live = LiveSource(name, camera.rate or rate or 0, width, stride, camera, open_camera, timeout)
        return _with_rate_checked(live, rate)

    is_pipe = source == STANDARD_INPUT or path.is_fifo()
    name = "standard input" if source == STANDARD_INPUT else without_secrets(source)
    # absolute, for in a name alone FFmpeg takes a colon for a protocol's
    url = source if is_remote else "pipe:0" if source == STANDARD_INPUT else str(path.absolute())

    def open_decoder(is_live: bool = True) -> VideoDecoder:
        limits = (OPEN_TIMEOUT, READ_TIMEOUT) if is_remote else None
        return VideoDecoder(url, name, width, max_pixels, limits, is_live)

    decoder = in_thread(lambda: open_decoder(is_live=is_remote)) if is_remote or is_pipe else open_decoder(is_live=False)
    is_made_up = rate is not None and is_pipe and decoder.format in RAW_MOTION_JPEG
    stated = rate if rate is not None and (is_made_up or not decoder.rate) else decoder.rate
    if is_remote and not decoder.has_end:
        return _with_rate_checked(LiveSource(name, stated, width, stride, decoder, open_decoder, timeout), rate)
    kind = PipeSource if is_pipe else FileSource
    return _with_rate_checked(kind(name, stated, width, stride, decoder, not is_made_up), rate)


def _with_rate_checked(source: VideoSource, rate: float | None) -> VideoSource:
    """Return `source`; warn if it states no frame rate, or another than the one asked for."""
    if not source.has_rate and not source.is_live:
        logger.warning("%s states no frame rate; taking %g frames per second", source.name, float(source.rate))
    if rate and abs(rate - source.rate) > 0.01 * rate:
        logger.warning("--rate: not used, for %s states %.5g frames per second", source.name, float(source.rate))
    return source


def in_thread(function: Callable[[], VideoDecoder]) -> VideoDecoder:
    """Return what `function` returns, or raise what it raises; Ctrl-C is heard meanwhile, though it waits in C code."""
    results: queue.Queue[VideoDecoder | Exception] = queue.Queue()

    def call() -> None:
        try:
            results.put(function())
        except Exception as error:  # the other thread's to raise
            results.put(error)

    threading.Thread(target=call, name="opener", daemon=True).start()
    while True:
        with suppress(queue.Empty):
            result = results.get(timeout=TICK)
            if isinstance(result, Exception):
                raise result
            return result


def without_secrets(source: str) -> str:
    """Return a source as messages may name it: a URL without user, password and settings, where cameras take passwords too."""
    if "://" not in source:
        return source
    return re.sub(r"/[^/]*=.*", "/…", re.sub(r"//.*@", "//", re.sub(r"\?.*", "?…", source)))


class FileSource(VideoSource):
    """A video that has an end: every frame is given, in order, at the time that the file states, or by the rate."""

    def __init__(
        self, name: str, rate: float, width: int | None, stride: int, decoder: VideoDecoder, has_times: bool = True
    ) -> None:
        """`has_times` is False where FFmpeg makes the times up, 25 a second."""
        super().__init__(name, rate, width, stride)
        self._decoder, self._has_times = decoder, has_times
        if decoder.frame_count:
            self.frame_count = math.ceil(decoder.frame_count / stride)

    def frames(self, on_stall: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        first = last = None
        failures = 0  # frames one after the other that could not be decoded
        for number in count():
            if self._stopped.is_set():
                return
            is_wanted = number % self._stride == 0
            decoded = self._decoder.read(is_wanted)
            if decoded is None:
                self.fault = self._find_fault(last or 0.0)
                return
            if not decoded.is_decoded:  # its time may be out of order
                self.dropped_frames += 1
                failures += 1
                self.quality.add((last or 0.0) + failures / float(self.rate), None, is_corrupt=True)
                continue
            failures = 0
            if first is None:
                first = decoded.time
            after = None if decoded.time is None or first is None else decoded.time - first
            if not self._has_times:
                after = float(number / self.rate)
            elif last is None:
                after = 0.0
            elif after is None or not last < after < math.inf:  # raw streams have none, broken files some that do not grow
                after = last + 1 / float(self.rate)
            last = after
            self.quality.add(after, decoded.image, decoded.is_corrupt)
            if decoded.image is not None:
                yield Frame(number, after, decoded.image)

    def _find_fault(self, last: float) -> str:
        """Return what is wrong with the file if it ended too early, after a frame at `last` in s."""
        if self._decoder.error:
            return f"breaks off after {last:.1f} s ({self._decoder.error})"
        if self._decoder.missing_time(last) > MISSING_TIME + 1 / self.rate:
            return f"states {self._decoder.duration:.1f} s, and breaks off after {last:.1f} s"
        return ""

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._decoder.close()


class PipeSource(FileSource):
    """Standard input or a FIFO: read on a thread of its own, for nothing ends a wait for what a pipe may never bring."""

    PREFETCH = 4  # frames read before they are taken

    def frames(self, on_stall: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        waiting: queue.Queue[Frame | Exception | None] = queue.Queue(self.PREFETCH)

        def read() -> None:
            try:
                for frame in super(PipeSource, self).frames():
                    waiting.put(frame)
                waiting.put(None)
            except Exception as error:  # the other thread's to raise
                waiting.put(error)

        threading.Thread(target=read, name="source", daemon=True).start()
        last, is_reported = time.monotonic(), False
        while not self._stopped.is_set():
            try:
                frame = waiting.get(timeout=TICK)
            except queue.Empty:
                stall = time.monotonic() - last
                on_stall(stall)
                if stall >= STALL and not is_reported:
                    logger.warning("%s: no frame for %.0f s; waiting", self.name, stall)
                    is_reported = True
                continue
            if isinstance(frame, Exception):
                raise frame
            if frame is None:
                return
            yield frame
            last, is_reported = time.monotonic(), False

    def __exit__(self, *_: object) -> None:
        self.stop()  # the thread may be in a read that does not end: it is left, and the decoder with it


class ImageSource(VideoSource):
    """Images as frames, in the order of the numbers in their names; one that cannot be read is dropped, with a warning."""

    def __init__(self, source: str, rate: float, width: int | None, stride: int, max_pixels: int = MAX_PIXELS) -> None:
        """Raises InputError if no image matches `source`."""
        super().__init__(source, rate, width, stride)
        if NUMBER_PLACE.search(source):
            parts = [glob.escape(part) for part in NUMBER_PLACE.split(source)]
            if not glob.glob("[0-9]*".join(parts)):
                raise InputError(f"{source}: no file matches; check the pattern")
            source = "[0-9]*".join(parts)
        self._max_pixels = max_pixels
        self._paths = sorted(find_images([source]), key=_by_numbers)[::stride]
        self.frame_count = len(self._paths)

    def frames(self, on_stall: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            if self._stopped.is_set():
                return
            try:
                image = read_image(path, self._max_pixels)
            except InputError as error:
                if len(self._paths) == 1:
                    raise
                logger.warning("%s", error)
                self.dropped_frames += 1
                continue
            number = index * self._stride
            self.quality.add(float(number / self.rate), image, is_corrupt=False)
            yield Frame(number, float(number / self.rate), self._fit(image))


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


class AnimationSource(VideoSource):
    """An animated image (WebP, PNG, GIF), whose frames Pillow decodes: FFmpeg knows no animated WebP."""

    def __init__(self, path: Path, width: int | None, stride: int, max_pixels: int = MAX_PIXELS) -> None:
        """Raises InputError if the frames have more than `max_pixels`."""
        with ExitStack() as stack:
            self._image = stack.enter_context(Image.open(path))
            check_size(str(path), *self._image.size, max_pixels)
            try:
                delay = self._delay(self._image)
            except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow's, of broken files
                raise InputError(f"{path}: cannot be read ({error}); copy it again") from error
            stack.pop_all()  # open until the source is closed
        super().__init__(str(path), 1 / delay, width, stride)
        self.frame_count = math.ceil(getattr(self._image, "n_frames", 1) / stride)

    def frames(self, on_stall: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        time = 0.0
        try:
            for number, frame in enumerate(ImageSequence.Iterator(self._image)):
                if self._stopped.is_set():
                    return
                if number % self._stride == 0:
                    rgba = frame.convert("RGBA")
                    opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
                    image = cv2.cvtColor(np.asarray(opaque), cv2.COLOR_RGBA2BGR)
                    self.quality.add(time, image, is_corrupt=False)
                    yield Frame(number, time, self._fit(image))
                time += self._delay(frame)
        except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow's, of broken files
            self.fault = f"breaks off after {time:.1f} s ({error})"

    @staticmethod
    def _delay(frame: Image.Image) -> float:
        """Return for how many seconds a frame is shown."""
        frame.load()  # WebP states it with the pixels
        return frame.info.get("duration", 0) / 1000 or ANIMATION_DELAY

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._image.close()


def is_animation(path: Path) -> bool:
    """Return whether a file is an image of several frames."""
    with suppress(Exception), Image.open(path) as image:  # of broken files Pillow raises what comes
        return getattr(image, "is_animated", False) and image.format != "TIFF"  # its frames are pages
    return False


class LiveSource(VideoSource):
    """A camera or stream, read on a thread of its own: the newest frame is given, and what nobody waited for is dropped.

    Times are those of arrival. When it drops it is opened again, with growing waits, until `timeout` seconds have passed.
    """

    is_live = True
    FIRST_WAIT, MAX_WAIT = 1.0, 30.0  # s, before it is opened again

    def __init__(
        self,
        name: str,
        rate: float,
        width: int | None,
        stride: int,
        reader: Reader,
        open_reader: Callable[[], Reader],
        timeout: float,
    ) -> None:
        """`reader` is open; `open_reader` opens it again, and raises InputError if it cannot."""
        super().__init__(name, rate, width, stride)
        self._reader: Reader | None = reader
        self._open_reader, self._timeout = open_reader, timeout
        self._newest: Frame | None = None  # its number and time since the source was opened
        self._changed = threading.Condition()
        self._is_lost = self._has_ended = False
        self._error: InputError | None = None  # the reading thread's
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    def frames(self, on_stall: Callable[[float], None] = lambda seconds: None) -> Iterator[Frame]:
        first, self.dropped_frames = None, 0
        last, is_reported = time.monotonic(), False
        while not self._stopped.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._has_ended, TICK)
                frame, self._newest = self._newest, None
            if frame is not None:
                first = frame if first is None else first
                yield Frame(frame.number - first.number, frame.time - first.time, frame.image)
                last, is_reported = time.monotonic(), False
            elif self._has_ended:
                if self._error:
                    raise self._error
                self.fault = "has ended; start again when it is back"
                return
            else:
                stall = time.monotonic() - last
                on_stall(stall)
                if stall >= STALL and not is_reported and not self._is_lost:
                    logger.warning("%s: no frame for %.0f s; waiting", self.name, stall)
                    is_reported = True

    def _read(self) -> None:
        try:
            self._read_and_reopen()
        except InputError as error:
            self._error = error
        finally:
            self._close()
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _read_and_reopen(self) -> None:
        start, last, wait = None, time.monotonic(), self.FIRST_WAIT
        number = 0
        while not self._stopped.is_set():
            decoded = self._reader.read(number % self._stride == 0) if self._reader else None
            now = time.monotonic()
            if decoded is not None:
                if self._is_lost:
                    logger.info("%s: back after %.1f s", self.name, now - last)
                    self._is_lost, wait = False, self.FIRST_WAIT
                start = now if start is None else start
                last = now
                self.quality.add(now - start, decoded.image, decoded.is_corrupt)
                if decoded.image is not None:
                    self._give(Frame(number, now - start, self._fit(decoded.image)))
                number += 1
                continue
            self._close()
            if self._stopped.is_set() or now - last >= self._timeout:
                return
            if self._is_lost:
                what = f"still away after {now - last:.0f} s"
            else:
                is_stalled = now - last >= READ_TIMEOUT / 2
                what = f"no frame for {now - last:.1f} s" if is_stalled else "the connection is lost"
            wait = min(wait, last + self._timeout - now)
            logger.warning("%s: %s; opening it again in %.2g s", self.name, what, wait)
            self._is_lost = True
            if self._stopped.wait(wait):
                return
            wait = min(2 * wait, self.MAX_WAIT)
            with suppress(InputError):  # still away
                self._reader = self._open_reader()

    def _give(self, frame: Frame) -> None:
        with self._changed:
            self.dropped_frames += self._newest is not None
            self._newest = frame
            self._changed.notify_all()

    def _close(self) -> None:
        if self._reader:
            self._reader.close()
            self._reader = None

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._thread.join(READ_TIMEOUT + 1)  # a read that hangs ends by its time limit
