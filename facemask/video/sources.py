"""Read frames of files, images, cameras and streams."""

import glob
import logging
import math
import queue
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from PIL import Image, ImageSequence

from facemask.errors import InputError
from facemask.io.find_images import describe_skipped, find_images
from facemask.io.images import MAX_PIXELS, read_image
from facemask.io.kinds import Kind
from facemask.types import Frame
from facemask.video.camera import CameraReader, needs_main_thread
from facemask.video.decoder import MAX_RATE, MIN_RATE, DecodedFrame, VideoDecoder, check_size
from facemask.video.find_sources import (
    STANDARD_INPUT,
    SourceName,
    is_animation,
    is_camera,
    is_frame,
    is_remote,
    is_waiting,
    source_name,
)
from facemask.video.main_thread import MainThreadCalls
from facemask.video.sound import Sound

DEFAULT_RATE = 25.0  # frames per second, for sources that state none
MAX_DENOMINATOR = 1001  # of rates as broadcasters have them: 30000/1001
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

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """What decodes frames one by one: a `VideoDecoder` or a `CameraReader`."""

    rate: float  # frames per second; 0 if unknown
    has_sound: bool

    def read(self, wanted: bool = True) -> DecodedFrame | None:
        """Return the next frame, with its image if it is `wanted`; None at the end."""

    def close(self) -> None: ...


def ignore_stall(seconds: float) -> None:
    """Do nothing about a stall."""


class VideoSource(AbstractContextManager, ABC):
    """Something that gives frames, once: walk `frames()`, or `poll` several sources in turn."""

    is_live = False  # gives the newest frame, and may come back when it has dropped
    is_waiting = False  # frames come when they come: `poll` never waits for one, so that several sources can go on at once

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
        self.has_ended = False  # `poll` returns no more frames
        self.has_sound = False
        self.arrived = threading.Event()  # set when there may be a frame; several sources may be given the same one
        self._width, self._stride = width, stride
        self._stopped = threading.Event()
        self._empty_since: float | None = None  # time.monotonic() of the first poll without a frame since the last frame
        self._next_stall = 0.0  # time.monotonic()
        self._is_stall_reported = False

    def rename(self, name: str) -> None:
        """Be called `name` in messages and records."""
        self.name = self.quality.name = name

    def open_sound(self) -> Sound | None:
        """Return the sound, to be copied beside the frames; None if there is none, or it cannot be copied, which is logged."""
        if self.has_sound:
            logger.info("%s: its sound is not copied; only that of files is", self.name)
        return None

    @property
    def losses(self) -> Counter[str]:
        """Return how many frames were lost by how, as {"dropped": 3, "corrupt": 2}, without zeros."""
        return Counter({"dropped": self.dropped_frames}) + self.quality.losses

    def frames(self, on_stall: Callable[[float], None] = ignore_stall) -> Iterator[Frame]:
        """Yield the frames in order.

        While a source gives no frame `on_stall` is called a few times a second, with the seconds since its last frame.
        """
        while not self.has_ended:
            self.arrived.clear()
            frame = self.poll(on_stall)
            if frame is not None:
                yield frame
            elif not self.has_ended:
                self.arrived.wait(TICK)

    def poll(self, on_stall: Callable[[float], None] = ignore_stall) -> Frame | None:
        """Return the next frame; None if there is none now, or none any more (`has_ended`). `on_stall` as for `frames`.

        Raises InputError if the source fails for good.
        """
        try:
            frame = None if self._stopped.is_set() else self._take()
        except BaseException:
            self.has_ended = True
            raise
        self.has_ended = self.has_ended or self._stopped.is_set()
        if frame is not None:
            self._empty_since, self._is_stall_reported = None, False
        elif not self.has_ended:
            self._check_stall(on_stall)
        return frame

    @abstractmethod
    def _take(self) -> Frame | None:
        """Return the next frame; None if there is none now, or after the last one, when it sets `has_ended`."""

    def _check_stall(self, on_stall: Callable[[float], None]) -> None:
        now = time.monotonic()
        if self._empty_since is None:
            self._empty_since, self._next_stall = now, now + TICK / 2
        if now < self._next_stall:
            return
        self._next_stall = now + TICK
        stall = now - self._empty_since
        on_stall(stall)
        if stall >= STALL and not self._is_stall_reported and not self._is_away():
            logger.warning("%s: no frame for %.0f s; waiting", self.name, stall)
            self._is_stall_reported = True

    def _is_away(self) -> bool:
        """Return whether it was reported already that no frames come."""
        return False

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
    def losses(self) -> Counter[str]:
        """Return the counts to report at the end, as {"corrupt": 3}; uniform frames count only if they lasted."""
        uniform = self.uniform_frames if "uniform" in self._reported else 0
        return +Counter({"corrupt": self.corrupt_frames, "of one colour": uniform})


def is_uniform(image: np.ndarray) -> bool:
    """Return whether `image`, uint8 (H, W, 3), has one colour all over, as of a covered lens or a decoder that fails."""
    _, deviation = cv2.meanStdDev(np.ascontiguousarray(image[::UNIFORM_STEP, ::UNIFORM_STEP]))
    return bool(deviation.max() <= UNIFORM_DEVIATION)


def open_source(
    source: SourceName,
    width: int | None = None,
    stride: int = 1,
    rate: float | None = None,
    timeout: float = math.inf,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> VideoSource:
    """Open a camera (its index, as "0"), a video file, images (a folder, glob or frame_%04d.jpg), a URL, or "-".

    "-" is standard input, in any format that FFmpeg knows by its beginning, as motion JPEG. Frames are scaled down to
    `width` px, of which a camera is asked as well; only every `stride`-th is given. `rate`, in frames per second, is used
    for images, for raw motion JPEG from a pipe and for what states none. A live source that has dropped is opened again
    for `timeout` seconds. `name` is what messages and records call a video; None is its path or URL. Raises InputError if it
    cannot be opened, or its frames have more than `max_pixels`.
    """
    if not isinstance(source, str):
        return ImageSource(source, rate or DEFAULT_RATE, width, stride, max_pixels)
    path = Path(source)
    are_images = is_frame(path) or (glob.has_magic(source) and not path.exists())
    if path.is_dir() or (are_images and not is_remote(source)):
        if is_animation(path):
            return _with_rate_checked(AnimationSource(path, width, stride, max_pixels), rate)
        return ImageSource(source, rate or DEFAULT_RATE, width, stride, max_pixels)
    name = name or source_name(source)
    if not (is_waiting(source) or path.is_file()):
        raise InputError(f"{name}: no such video; give a file, a stream's URL, or a camera's index (0 is the first)")
    if is_camera(source) or is_remote(source):
        open_reader = partial(_open_reader, source, width, max_pixels)
        reader = open_reader()
        stated = reader.rate or rate or 0
        if isinstance(reader, CameraReader) or not reader.has_end:
            live = LiveSource(name, stated, width, stride, reader, open_reader, timeout, _opens_on_main_thread(source))
            return _with_rate_checked(live, rate)
        return _with_rate_checked(PipeSource(name, stated, width, stride, reader), rate)

    # absolute, for in a name alone FFmpeg takes a colon for a protocol's
    url = "pipe:0" if source == STANDARD_INPUT else str(path.absolute())
    is_pipe = is_waiting(source)
    decoder = VideoDecoder(url, name, width, max_pixels, None)
    is_made_up = rate is not None and is_pipe and decoder.format in RAW_MOTION_JPEG
    stated = rate if rate is not None and (is_made_up or not decoder.rate) else decoder.rate
    kind = PipeSource if is_pipe else FileSource
    return _with_rate_checked(kind(name, stated, width, stride, decoder, not is_made_up), rate)


def open_sources(
    sources: Sequence[SourceName],
    width: int | None = None,
    stride: int = 1,
    rate: float | None = None,
    timeout: float = math.inf,
    max_pixels: int = MAX_PIXELS,
) -> list[VideoSource]:
    """Open several sources at the same time, as `open_source` does; each gets a name of its own.

    A camera or stream that cannot be opened is tried again for `timeout` seconds, if another one can. Raises InputError if
    none can be opened, or one of another kind cannot.
    """
    opened = in_threads(
        [partial(open_source, source, width, stride, rate, timeout, max_pixels) for source in sources],
        [_opens_on_main_thread(source) for source in sources],
    )
    errors = [result for result in opened if isinstance(result, InputError)]
    is_fatal = [isinstance(result, InputError) and not _may_come(source) for source, result in zip(sources, opened, strict=True)]
    if any(is_fatal) or len(errors) == len(sources):
        for result in opened:
            if not isinstance(result, InputError):
                result.__exit__()
        for error in errors[:-1]:
            logger.warning("%s", error)
        raise errors[-1]
    numbers: Counter[str] = Counter()
    ready = []
    for source, result in zip(sources, opened, strict=True):
        if isinstance(result, InputError):
            logger.warning("%s", result)
            open_reader = partial(_open_reader, str(source), width, max_pixels)
            name, is_main = source_name(source), _opens_on_main_thread(source)
            result = LiveSource(name, rate or 0, width, stride, None, open_reader, timeout, is_main)
        numbers[result.name] += 1
        if numbers[result.name] > 1:  # URLs that differ in what is not shown
            result.rename(f"{result.name} #{numbers[result.name]}")
        ready.append(result)
    return ready


def stop_sources(sources: Iterable[VideoSource]) -> None:
    """Stop each source; may be called from a signal handler."""
    for source in sources:
        source.stop()


def _opens_on_main_thread(source: SourceName) -> bool:
    """Return whether a source must be opened, and opened again, on the main thread."""
    return isinstance(source, str) and is_camera(source) and needs_main_thread(sys.platform)


def _may_come(source: SourceName) -> bool:
    """Return whether a source that cannot be opened now may be later."""
    return isinstance(source, str) and (is_camera(source) or is_remote(source))


def _open_reader(source: str, width: int | None, max_pixels: int) -> "CameraReader | VideoDecoder":
    """Open a camera or a stream. Raises InputError if it cannot be opened, or its frames have more than `max_pixels`."""
    name = source_name(source)
    if is_remote(source):
        return VideoDecoder(source, name, width, max_pixels, (OPEN_TIMEOUT, READ_TIMEOUT), is_live=True)
    camera = CameraReader(int(source) if source.isdecimal() else source, name, width)
    check_size(name, camera.width, camera.height, max_pixels)
    return camera


def _with_rate_checked(source: VideoSource, rate: float | None) -> VideoSource:
    """Return `source`; warn if it states no frame rate, or another than the one asked for."""
    if not source.has_rate and not source.is_live:
        logger.warning("%s states no frame rate; taking %g frames per second", source.name, float(source.rate))
    if rate and abs(rate - source.rate) > 0.01 * rate:
        logger.warning("--rate: not used, for %s states %.5g frames per second", source.name, float(source.rate))
    return source


def in_threads(functions: Sequence[Callable[[], Result]], is_own: Sequence[bool]) -> list[Result | InputError]:
    """Call functions at the same time; return what each returns, or the InputError that it raises.

    This thread calls those that are its `is_own`, one after the other. Ctrl-C is heard meanwhile, though the others may wait in
    C code.
    """
    results: dict[int, Result | Exception] = {}

    def call(index: int) -> None:
        try:
            results[index] = functions[index]()
        except Exception as error:  # the other thread's to raise
            results[index] = error

    threads = [
        threading.Thread(target=call, args=(index,), name="opener", daemon=True)
        for index in range(len(functions))
        if not is_own[index]
    ]
    for thread in threads:
        thread.start()
    for index in range(len(functions)):
        if is_own[index]:
            call(index)
    for thread in threads:
        while thread.is_alive():
            thread.join(TICK)
    returned: list[Result | InputError] = []
    for index in range(len(functions)):
        result = results[index]
        if isinstance(result, Exception) and not isinstance(result, InputError):
            raise result
        returned.append(result)
    return returned


class StoredSource(VideoSource):
    """Frames that are there when they are asked for."""

    _frames: Iterator[Frame] | None = None

    def _take(self) -> Frame | None:
        if self._frames is None:
            self._frames = self._read()
        frame = next(self._frames, None)
        self.has_ended = frame is None
        return frame

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield the frames."""


class FileSource(StoredSource):
    """A video that has an end: every frame is given, in order, at the time that the file states, or by the rate."""

    def __init__(
        self, name: str, rate: float, width: int | None, stride: int, decoder: VideoDecoder, has_times: bool = True
    ) -> None:
        """`has_times` is False where FFmpeg makes the times up, 25 a second."""
        super().__init__(name, rate, width, stride)
        self._decoder, self._has_times = decoder, has_times
        self.has_sound = decoder.has_sound
        self._sound: Sound | None = None
        if decoder.frame_count:
            self.frame_count = math.ceil(decoder.frame_count / stride)

    def open_sound(self) -> Sound | None:
        self._sound = Sound(self._decoder.url, self.name) if self.has_sound else None
        return self._sound

    def _read(self) -> Iterator[Frame]:
        first = last = None
        failures = 0  # frames one after the other that could not be decoded
        for number in count():
            if self._stopped.is_set():
                return
            is_wanted = number % self._stride == 0
            decoded = self._decoder.read(is_wanted)
            if decoded is None:
                self.fault = self._find_fault(last or 0.0)
                if self._sound:
                    self._sound.is_whole = True
                return
            if not decoded.is_decoded:  # its time may be out of order
                self.dropped_frames += 1
                failures += 1
                self.quality.add((last or 0.0) + failures / float(self.rate), None, is_corrupt=True)
                continue
            failures = 0
            if first is None:
                first = decoded.time
                if self._sound:
                    self._sound.start = first
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
    """What has an end and comes when it comes, as standard input: read on a thread, for nothing ends a wait for a pipe."""

    is_waiting = True
    PREFETCH = 4  # frames read before they are taken

    def __init__(self, *arguments: Any) -> None:
        """Takes what `FileSource` takes."""
        super().__init__(*arguments)
        self._waiting: queue.Queue[Frame | Exception | None] = queue.Queue(self.PREFETCH)  # None is the end
        self._thread: threading.Thread | None = None

    def open_sound(self) -> Sound | None:
        return VideoSource.open_sound(self)  # it cannot be read a second time

    def _take(self) -> Frame | None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._read_ahead, name="source", daemon=True)
            self._thread.start()
        try:
            frame = self._waiting.get_nowait()
        except queue.Empty:
            return None
        if isinstance(frame, Exception):
            raise frame
        self.has_ended = frame is None
        return frame

    def _read_ahead(self) -> None:
        try:
            for frame in self._read():
                self._put(frame)
            self._put(None)
        except Exception as error:  # the other thread's to raise
            self._put(error)

    def _put(self, frame: Frame | Exception | None) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._waiting.put(frame, timeout=TICK)
                self.arrived.set()
                return

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(2 * TICK)
        if self._thread is None or not self._thread.is_alive():  # else it is in a read that may not end, and is left
            self._decoder.close()


class ImageSource(StoredSource):
    """Images as frames, in the order of the numbers in their names; one that cannot be read is dropped, with a warning."""

    def __init__(self, source: SourceName, rate: float, width: int | None, stride: int, max_pixels: int = MAX_PIXELS) -> None:
        """Raises InputError if no image matches `source`."""
        super().__init__(source_name(source), rate, width, stride)
        self._max_pixels = max_pixels
        skipped: Counter[Kind] = Counter()
        paths = find_images([_with_numbers_as_glob(source)], skipped) if isinstance(source, str) else source
        if skipped:
            logger.warning("%s: not read: %s", source, describe_skipped(skipped))
        self._paths = sorted(paths, key=_by_numbers)[::stride]
        self.frame_count = len(self._paths)

    def _read(self) -> Iterator[Frame]:
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


def _with_numbers_as_glob(source: str) -> str:
    """Return frame_%04d.jpg as a glob, other names as they are. Raises InputError if no image matches."""
    if not NUMBER_PLACE.search(source):
        return source
    parts = [glob.escape(part) for part in NUMBER_PLACE.split(source)]
    if not glob.glob("[0-9]*".join(parts)):
        raise InputError(f"{source}: no file matches; check the pattern")
    return "[0-9]*".join(parts)


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


class AnimationSource(StoredSource):
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

    def _read(self) -> Iterator[Frame]:
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


class LiveSource(VideoSource):
    """A camera or stream, read on a thread of its own: the newest frame is given, and what nobody waited for is dropped.

    Times are those of arrival. When it drops it is opened again, with growing waits, until `timeout` seconds have passed.
    """

    is_live = is_waiting = True
    FIRST_WAIT, MAX_WAIT = 1.0, 30.0  # s, before it is opened again

    def __init__(
        self,
        name: str,
        rate: float,
        width: int | None,
        stride: int,
        reader: Reader | None,
        open_reader: Callable[[], Reader],
        timeout: float,
        opens_on_poll: bool = False,
    ) -> None:
        """`reader` is open, or None if it could not be; `open_reader` opens it again, and raises InputError if it cannot.

        With `opens_on_poll` it is called by the thread that polls, else by that which reads.
        """
        super().__init__(name, rate, width, stride)
        self._reader = reader
        self.has_sound = reader is not None and reader.has_sound
        self._calls: MainThreadCalls[Reader] = MainThreadCalls()
        self._open_reader = partial(self._calls.call, open_reader, self._stopped.is_set) if opens_on_poll else open_reader
        self._timeout = timeout
        self._newest: Frame | None = None  # its number and time since the source was opened
        self._lock = threading.Lock()  # of the newest frame
        self._is_lost = reader is None  # there is no connection, as was reported
        self._is_read = False  # there will be no more frames
        self._first: Frame | None = None  # that was taken
        self._error: InputError | None = None  # the reading thread's
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    def _take(self) -> Frame | None:
        self._calls.run()
        is_read = self._is_read  # before the newest frame, which may be the last
        with self._lock:
            frame, self._newest = self._newest, None
            if self._first is None:  # those before were not waited for
                self._first, self.dropped_frames = frame, 0
        if frame is not None and self._first is not None:
            return Frame(frame.number - self._first.number, frame.time - self._first.time, frame.image)
        if is_read:
            self.has_ended = True
            if self._error:
                raise self._error
            self.fault = "has ended; start again when it is back"
        return None

    def _is_away(self) -> bool:
        return self._is_lost

    def _read(self) -> None:
        try:
            self._read_and_reopen()
        except InputError as error:
            self._error = error
        finally:
            self._close()
            self._is_read = True
            self.arrived.set()

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
        with self._lock:
            self.dropped_frames += self._newest is not None
            self._newest = frame
        self.arrived.set()

    def _close(self) -> None:
        if self._reader:
            self._reader.close()
            self._reader = None

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._thread.join(READ_TIMEOUT + 1)  # a read that hangs ends by its time limit
