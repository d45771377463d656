"""Copy the sound of a video file as it is stored, with its times, beside the video that is written."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

MAX_LEAD = 0.1  # s of sound before the first frame that is kept: decoders need what encoders put there, to begin

logger = logging.getLogger(__name__)


class Sound(AbstractContextManager):
    """The audio streams of a file: read apart from its frames, up to a time, and written to another container.

    The reader of the frames sets `start` at the first one, and `is_whole` once all frames were given.
    """

    def __init__(self, path: str, name: str) -> None:
        """Open the file, an absolute path; messages call it `name`. Raises FFmpegError if it cannot be opened."""
        import av
        from av.stream import Discard

        self.name = name
        self.start: float | None = None  # s, time of the first frame, as the container states it
        self.is_whole = False  # sound after the last frame is wanted too
        self._container = av.open(path)
        self._streams = self._container.streams.audio
        for stream in self._container.streams:
            stream.discard = Discard.default if stream.type == "audio" else Discard.all
        self._outputs: dict[int, av.AudioStream] = {}  # by the index of the stream that is copied to it
        self._shifts: dict[int, int] = {}  # from the container's times to those from the first frame, in the stream's unit
        self._filters: dict[int, av.BitStreamFilterContext] = {}
        self._last: dict[int, int] = {}  # decoding times, as the container states them
        self._packets = self._read()
        self._next: av.Packet | None = None
        self._unusable = 0

    def add_to(self, container: "av.container.OutputContainer") -> bool:
        """Add the audio streams that `container` can hold to it; returns whether there is one. Warns of others."""
        from av.bitstream import BitStreamFilterContext

        self._outputs = {}
        for stream in self._streams:
            codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
            try:
                if stream.codec_context is None:
                    raise ValueError
                output = container.add_stream_from_template(stream)
            except ValueError:
                reason = ".mkv cannot hold it" if container.format.name == "matroska" else ".mp4 cannot hold it; try .mkv"
                logger.warning("%s: its sound (%s) is not copied: %s", self.name, codec, reason)
                continue
            if "language" in stream.metadata:
                output.metadata["language"] = stream.metadata["language"]
            self._outputs[stream.index] = output
            if codec == "aac" and not stream.codec_context.extradata:  # of a transport stream: headers before each packet
                self._filters[stream.index] = BitStreamFilterContext("aac_adtstoasc", stream)
        return bool(self._outputs)

    def packets(self, until: float) -> Iterator["av.Packet"]:
        """Yield the packets that begin before `until`, in s from the first frame, ready to be written, once each."""
        if not self._outputs or self.start is None:
            return
        while True:
            self._next = self._next or next(self._packets, None)
            if self._next is None or self._time(self._next) >= until:
                return
            packet, self._next = self._next, None
            if self._time(packet) < -MAX_LEAD or packet.dts <= self._last.get(packet.stream_index, packet.dts - 1):
                self._unusable += 1
                continue
            index, unit = packet.stream_index, packet.time_base
            self._last[index] = packet.dts
            shift = self._shifts.setdefault(index, round(self.start / unit))
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            for ready in self._filters[index].filter(packet) if index in self._filters else [packet]:
                ready.stream, ready.time_base = self._outputs[index], unit
                yield ready

    def give_up(self, error: Exception) -> None:
        """Copy nothing more, and say so."""
        self._outputs = {}
        reason = getattr(error, "strerror", None) or error
        logger.warning("%s: the rest of its sound is not copied (%s); the video goes on", self.name, reason)

    def close(self) -> None:
        """Close the file, and report what could not be copied."""
        if self._unusable:
            message = "%s: %d packets of its sound, before the first frame or out of order, are not copied"
            logger.info(message, self.name, self._unusable)
        self._unusable = 0
        self._container.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> Iterator["av.Packet"]:
        import av

        try:
            for packet in self._container.demux(*self._streams):
                if packet.stream_index in self._outputs and packet.size:
                    if packet.pts is None or packet.dts is None:
                        self._unusable += 1
                    else:
                        yield packet
        except av.FFmpegError:  # of a file that is cut off: the reader of its frames reports it
            return

    def _time(self, packet: "av.Packet") -> float:
        return float(packet.pts * packet.time_base) - (self.start or 0.0)
