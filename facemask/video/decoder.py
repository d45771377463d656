"""Decode video with FFmpeg (PyAV): every frame deinterlaced, upright and in square pixels."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import av
import av.filter
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from facemask.errors import InputError

MIN_RATE, MAX_RATE = 0.01, 240.0  # frames per second; beyond, what a container states is its time base, not a rate
MAX_PIXEL_ASPECT = 4.0  # width of a pixel by its height, or the reverse; broadcast video has 0.4 to 2.2, beyond it is an error
RAW_FORMATS = av.format.Flags.no_timestamps.value  # containers that hold the codec's bytes alone; their duration is a guess
SINGLE_THREAD_PIXELS = 640 * 480  # of a frame, up to which one thread decodes: handing frames over takes longer
TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


@dataclass(frozen=True)
class DecodedFrame:
    """A frame, or one that could not be decoded."""

    time: float | None  # s, as the container states it; None where it states no time
    image: np.ndarray | None  # uint8 (H, W, 3) BGR; None if the frame was not wanted, or could not be decoded
    is_corrupt: bool = False  # the decoder repaired the frame, or could not decode it
    is_decoded: bool = True


class VideoDecoder:
    """The first video stream of a container: a file, a pipe or a URL.

    Interlaced frames are deinterlaced by FFmpeg's bwdif (https://ffmpeg.org/ffmpeg-filters.html#bwdif), one frame for each
    two fields; frames that an edit list hides are not returned.
    """

    def __init__(
        self, url: str, name: str, width: int | None, max_pixels: int, timeout: tuple[float, float] | None, is_live: bool = False
    ) -> None:
        """Open `url`; messages call it `name`. Images are scaled down to `width` px, if they are wider.

        `timeout` is in s, for opening and for each read; None waits for ever. With `is_live` a frame is returned as soon as
        it is decoded; else frames are decoded ahead on all cores. Raises InputError if `url` is not a video, FFmpeg has no
        decoder for it, or its frames have more than `max_pixels`.
        """
        self.url, self.name, self._width, self._max_pixels = url, name, width, max_pixels
        options = {"rtsp_transport": "tcp"} if url.startswith("rtsp") else {}  # UDP loses packets
        try:
            self._container = av.open(url, timeout=timeout, options=options)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise InputError(f"{name}: cannot be opened as a video; check that it is one and plays elsewhere") from error
        try:
            self._open_stream(is_live)
        except BaseException:
            self._container.close()
            raise
        self.has_sound = bool(self._container.streams.audio)
        self.error = ""  # why reading ended before the container's end
        self.last_packet = 0.0  # s, end of the latest packet of any stream
        self._converter = VideoReformatter()
        self._deinterlacer: av.filter.Graph | None = None
        self._deinterlaced_kind: tuple[int, int, str] | None = None  # width, height and pixel format of its frames
        self._frames = self._decode()

    def _open_stream(self, is_live: bool) -> None:
        stream = self._container.streams.best("video")
        if stream is None:
            raise InputError(f"{self.name}: has no video; give another file")
        if stream.codec_context is None:
            raise InputError(
                f"{self.name}: this FFmpeg has no decoder for its codec{_codec_name(self._container)}; convert it to H.264"
            )
        self._stream = stream
        stream.thread_type = "SLICE" if is_live else "AUTO"  # decoding several frames at once delays each of them
        if stream.codec_context.width * stream.codec_context.height <= SINGLE_THREAD_PIXELS:
            stream.codec_context.thread_count = 1
        self.codec: str = stream.codec_context.name
        self.format: str = self._container.format.name
        rates = (float(rate or 0) for rate in (stream.average_rate, stream.guessed_rate))
        self.rate = next((rate for rate in rates if MIN_RATE <= rate <= MAX_RATE), 0.0)  # frames per second; 0 if unknown
        aspect = float(stream.sample_aspect_ratio or 1)
        self._pixel_aspect = aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0
        check_size(self.name, *self._square_size(stream.codec_context.width, stream.codec_context.height), self._max_pixels)
        # A container states the end of its longest stream; one of the video alone is more exact.
        self._own_duration = _own_duration(stream)
        if self._own_duration and self.rate and self.format == "avi":  # FFmpeg shortens the duration of a file that is cut off
            self._own_duration = max(self._own_duration, stream.frames / self.rate)
        container_duration = self._container.duration / av.time_base if self._container.duration else None
        self._container_duration = None if self._container.format.flags & RAW_FORMATS else container_duration
        if self._container_duration is None:
            self._own_duration = None
        self.has_end = container_duration is not None or stream.frames > 0
        self.duration = self._own_duration or self._container_duration  # s; None if the container does not state it
        counts = [stream.frames, round(self.duration * self.rate) if self.duration else 0]  # the first with hidden frames
        self.frame_count = min(filter(None, counts), default=None)

    def read(self, wanted: bool = True) -> DecodedFrame | None:
        """Return the next frame, with its image if it is `wanted`; None at the end, or where reading fails (`error`).

        Raises InputError if the frame has too many pixels.
        """
        frame = next(self._frames, None)
        if frame is None:
            return None
        if isinstance(frame, av.VideoFrame):
            time = None if frame.pts is None else float(frame.pts * (frame.time_base or self._stream.time_base))
            return DecodedFrame(time, self._to_image(frame) if wanted else None, frame.is_corrupt)
        return DecodedFrame(frame, None, is_corrupt=True, is_decoded=False)

    def missing_time(self, last_time: float) -> float:
        """Return the seconds of video that the container states and does not hold, 0 if none or unknown.

        `last_time` is the time of the last frame, in s from the first.
        """
        if self._own_duration is not None:
            return max(self._own_duration - last_time, 0.0)
        if self._container_duration is not None:
            start = (self._container.start_time or 0) / av.time_base
            return max(self._container_duration - (self.last_packet - start), 0.0)
        return 0.0

    def close(self) -> None:
        self._container.close()

    def _decode(self) -> Iterator["av.VideoFrame | float | None"]:
        """Yield the frames; in place of one that cannot be decoded, its packet's time in s, or None."""
        has_begun = False  # a stream that is joined in the middle begins with frames that refer to earlier ones
        for packet in self._packets():
            has_begun = has_begun or (packet is not None and packet.is_keyframe)
            try:
                frames = packet.decode() if packet is not None else self._stream.decode(None)
            except av.FFmpegError:
                if has_begun and packet is not None:
                    yield None if packet.pts is None else float(packet.pts * packet.time_base)
                continue
            for frame in frames:
                yield from self._deinterlace(frame)
        yield from self._deinterlace(None)

    def _packets(self) -> Iterator["av.Packet | None"]:
        """Yield the packets of the video stream, and None at the end, which makes the decoder return what it holds."""
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    self.last_packet = max(self.last_packet, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is self._stream and packet.size:
                    yield packet
        except av.FFmpegError as error:
            self.error = error.strerror or str(error)
        yield None

    def _deinterlace(self, frame: "av.VideoFrame | None") -> Iterator[av.VideoFrame]:
        """Yield the frames that are ready once `frame` has come, None for the end. The first interlaced one begins to filter."""
        kind = (frame.width, frame.height, frame.format.name) if frame is not None else None
        if self._deinterlacer is not None and kind != self._deinterlaced_kind:  # the end, or other frames from here on
            self._deinterlacer.vpush(None)
            yield from _pull(self._deinterlacer)
            self._deinterlacer = None
        if frame is None:
            return
        if self._deinterlacer is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._deinterlacer, self._deinterlaced_kind = _bwdif(frame, self._stream), kind
        self._deinterlacer.vpush(frame)
        yield from _pull(self._deinterlacer)

    def _to_image(self, frame: av.VideoFrame) -> np.ndarray:
        """Return `frame` as uint8 (H, W, 3) BGR in square pixels, upright, no wider than asked for."""
        width, height = self._square_size(frame.width, frame.height)
        check_size(self.name, width, height, self._max_pixels)
        turn = round(frame.rotation / 90) * 90 % 360
        is_turned = turn in (90, 270)
        shown_width = height if is_turned else width
        if self._width is not None and shown_width > self._width:
            scale = self._width / shown_width
            width, height = max(round(width * scale), 1), max(round(height * scale), 1)
        scaling = None if (width, height) == (frame.width, frame.height) else Interpolation.AREA
        # By one converter, in this thread: FFmpeg's, which each frame would start anew, take several times as long.
        image = self._converter.reformat(frame, width, height, "bgr24", interpolation=scaling, threads=1).to_ndarray()
        return cv2.rotate(image, TURNS[turn]) if turn else image

    def _square_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of a frame of `width` x `height` once its pixels are square; no pixel is lost."""
        if self._pixel_aspect >= 1:
            return round(width * self._pixel_aspect), height
        return width, round(height / self._pixel_aspect)


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raise InputError if frames of `width` x `height` px have more than `max_pixels`."""
    if width * height > max_pixels:
        raise InputError(f"{name}: {width} x {height} pixels a frame are more than {max_pixels}; give --max-pixels more")


def _own_duration(stream: "av.VideoStream") -> float | None:
    """Return the duration in s that a container states for `stream`; None if it states only its own."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska's
    if tag is None:
        return None
    hours, minutes, seconds = map(float, tag.groups())
    return 3600 * hours + 60 * minutes + seconds


def _codec_name(container: "av.container.InputContainer") -> str:
    """Return " (NAME)" for the codec of a video stream that has no decoder, as FFmpeg's log describes it; "" if it does not."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # below it, the description is empty
    try:
        codec = re.search(r"Video: (?:none \()?(\w+)", container.dumps_format())
    finally:
        av.logging.set_level(level)
    return f" ({codec[1]})" if codec else ""


def _bwdif(frame: av.VideoFrame, stream: "av.VideoStream") -> av.filter.Graph:
    """Return a filter that deinterlaces frames like `frame`; frames that are flagged progressive pass as they are."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or stream.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", mode="send_frame", deint="interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _pull(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """Yield the frames that `graph` has ready; it holds each frame until the next has come."""
    with suppress(av.BlockingIOError, EOFError):
        while True:
            yield graph.vpull()
