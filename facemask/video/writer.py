"""Write video files."""

import errno
import math
from contextlib import AbstractContextManager, nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from facemask.errors import InputError
from facemask.io.outputs import check_writable, fresh_partial_path, put_in_place

if TYPE_CHECKING:
    from facemask.video.sound import Sound

VIDEO_SUFFIXES = (".mp4", ".mkv")
ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that this build of FFmpeg has is used
# No frames that refer to later ones (bf): a fragmented MP4 could not begin at 0 with them.
ENCODER_OPTIONS = {"libx264": {"preset": "superfast", "crf": "23", "bf": "0"}, "libopenh264": {}, "mpeg4": {"qscale": "4"}}
BT601, LIMITED_RANGE = 5, 1  # the colours that OpenCV makes of BGR, stated so that players need not guess
# A fragmented MP4 has fragments of two seconds, each readable once it is written, so that a killed process leaves a video.
# When the file is closed it becomes an ordinary one; for that 75 bytes per frame are kept, too much for a video without end:
# https://ffmpeg.org/ffmpeg-formats.html#mov_002c-mp4_002c-ismv
FRAGMENTED_UNTIL_CLOSED, FRAGMENTED = "hybrid_fragmented", "frag_keyframe+empty_moov+default_base_moof"
# With sound an MP4 file has an edit list, for sound may begin before the first frame, by what its decoder drops. The header of
# an unfinished file (moov) must then be written with the first fragment: one written before hides all but its first frame.
WITH_SOUND = {"movflags": f"{FRAGMENTED_UNTIL_CLOSED}+delay_moov", "use_editlist": "1"}
MAX_INTERLEAVE = "300000"  # µs that frames wait for sound, or sound for frames, before they are written
KEYFRAME_INTERVAL = 2  # s
MAX_KEYFRAME_FRAMES = 1000
SINGLE_THREAD_PIXELS = 640 * 480  # of a frame, up to which one thread encodes: handing over the parts of one takes longer
MIN_TIMESCALE = 10000  # ticks per second


def check_video_output(path: Path) -> None:
    """Raise InputError unless a video of that name can be written."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"{path}: cannot write this kind of video; use {' or '.join(VIDEO_SUFFIXES)}")
    check_writable(path)


class VideoSink(AbstractContextManager):
    """Writes frames, each at its time, to an MP4 (or Matroska) file.

    It gets its name when it is closed, after an error or Ctrl-C too; until then it is NAME.partial.SUFFIX, which can be
    played up to a few seconds before its end.
    """

    def __init__(self, path: str | Path, rate: Fraction, endless: bool = False, sound: "Sound | None" = None) -> None:
        """`rate` is in frames per second; frames may come at other times, which are kept to a fraction of its period.

        `sound` is copied as far as the frames go, and to its end if the source of the frames says so; it is closed with the
        file. With `endless` memory does not grow with the video, and an MP4 file stays fragmented, which nearly all players read.
        Raises InputError as `check_video_output` does. The first frame opens the file and gives it its size.
        """
        self.path, self.rate = Path(path), rate
        check_video_output(self.path)
        self._options = {"flush_packets": "1", "max_interleave_delta": MAX_INTERLEAVE}
        if self.path.suffix.lower() == ".mp4":
            self._options["movflags"] = FRAGMENTED if endless else FRAGMENTED_UNTIL_CLOSED
        self._partial = fresh_partial_path(self.path)
        self._container: Any = None  # PyAV's, of a file that the first frame opens
        self._stream: Any = None
        self._sound = sound
        self._tick = Fraction(1, rate.numerator * math.ceil(MIN_TIMESCALE / rate.numerator))  # s
        self._last = -1  # tick of the previous frame
        self._next_keyframe = Fraction(0)  # s, from which a fragment begins
        self._failed = False

    def write(self, image: np.ndarray, time: float) -> None:
        """Append a frame, uint8 (H, W, 3) BGR, at `time` in seconds; one of another size than the first is fitted to it.

        Raises InputError if it cannot be written.
        """
        import av

        try:
            if self._container is None:
                self._open(image.shape[1], image.shape[0])
            fitted = fit_into(image, self._stream.width, self._stream.height)
            frame = av.VideoFrame.from_ndarray(cv2.cvtColor(fitted, cv2.COLOR_BGR2YUV_I420), format="yuv420p")
            self._last = max(round(time / self._tick), self._last + 1)
            frame.pts, frame.time_base = self._last, self._tick
            if self._last * self._tick >= self._next_keyframe:
                frame.pict_type = av.video.frame.PictureType.I
                self._next_keyframe = self._last * self._tick + KEYFRAME_INTERVAL
            self._copy_sound(float(self._last * self._tick))
            self._container.mux(self._stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise self._failure(error) from error

    def _open(self, width: int, height: int) -> None:
        import av

        self._make_streams(width, height)
        if self._sound and self._sound.add_to(self._container):
            try:
                self._container.start_encoding()
                return
            except (ValueError, av.FFmpegError) as error:
                self._sound.give_up(error)
                with suppress(OSError, ValueError, av.FFmpegError):
                    self._container.close()
            self._make_streams(width, height)

    def _make_streams(self, width: int, height: int) -> None:
        import av

        options = self._options | (WITH_SOUND if self._sound and self.path.suffix.lower() == ".mp4" else {})
        # absolute, for in a name alone FFmpeg takes a colon for a protocol's
        self._container = av.open(str(self._partial.absolute()), "w", options=options)
        encoder = next(name for name in ENCODERS if name in av.codec.codecs_available)
        self._stream = self._container.add_stream(encoder, rate=self.rate, options=ENCODER_OPTIONS[encoder])
        self._stream.width, self._stream.height = (max(side // 2 * 2, 2) for side in (width, height))  # colour needs even
        self._stream.pix_fmt = "yuv420p"
        if self._stream.width * self._stream.height <= SINGLE_THREAD_PIXELS:
            self._stream.codec_context.thread_count = 1
        self._stream.codec_context.colorspace, self._stream.codec_context.color_range = BT601, LIMITED_RANGE
        self._stream.time_base = self._stream.codec_context.time_base = self._tick
        self._stream.gop_size = MAX_KEYFRAME_FRAMES

    def _copy_sound(self, until: float) -> None:
        """Write the sound before `until`, in s."""
        import av

        if self._sound is None:
            return
        try:
            for packet in self._sound.packets(until):
                self._container.mux(packet)
        except (ValueError, av.InvalidDataError) as error:  # a packet that the container cannot hold
            self._sound.give_up(error)

    def _failure(self, error: Exception) -> InputError:
        self._failed = True
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if is_full else "try a smaller --width, or another suffix"
        rest = f"; what there is plays from {self._partial}" if self._partial.exists() else ""
        return InputError(f"{self.path}: cannot be written ({getattr(error, 'strerror', None) or error}){rest}; {remedy}")

    def close(self) -> None:
        """Finish the file. Raises InputError if it cannot be written."""
        with self._sound or nullcontext():
            self._finish()

    def _finish(self) -> None:
        if self._container is None:
            return
        import av

        if self._failed:  # which was reported
            with suppress(OSError, av.FFmpegError):
                self._container.close()
            self._container = None
            return
        try:
            self._container.mux(self._stream.encode())
            if self._sound:
                self._copy_sound(math.inf if self._sound.is_whole else float(self._last * self._tick + 1 / self.rate))
            self._container.close()
        except (OSError, av.FFmpegError) as error:
            raise self._failure(error) from error
        self._container = None
        put_in_place(self._partial, self.path)

    def __exit__(self, *_: object) -> None:
        self.close()


def fit_into(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return `image` (H, W, 3) in that size: cut if it has a pixel too many, else scaled with its aspect ratio kept, on black."""
    rows, columns = image.shape[:2]
    if 0 <= rows - height <= 1 and 0 <= columns - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    scale = min(width / columns, height / rows)
    size = max(round(columns * scale), 1), max(round(rows * scale), 1)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return fitted
