"""Report how the sources of a run ended: one line for each, one for all together, and the exit code."""

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from facemask.errors import InputError, failure_allowed
from facemask.video.outputs import Statistics
from facemask.video.session import Channel

logger = logging.getLogger(__name__)


class Report:
    """Collects the sources that are done, and those that failed, each with one line."""

    def __init__(self, count: int, groups: int, max_frames: int | None) -> None:
        """`count` is the number of sources, in `groups` one after the other; `max_frames` that of each source."""
        self._count, self._groups, self._max_frames = count, groups, max_frames
        self._done: list[Channel] = []
        self.failed = 0  # sources

    @property
    def frames(self) -> int:
        """Return the number of frames so far."""
        return sum(channel.statistics.frames for channel in self._done)

    def failure_allowed(self) -> AbstractContextManager[None]:
        """Count an InputError of the block as the failure of a source, with a warning, if others follow."""
        return nullcontext() if self._groups == 1 else failure_allowed(self._warn)

    def _warn(self, error: InputError) -> None:
        logger.warning("%s", error)
        self.failed += 1

    def add(self, channels: Sequence[Channel], is_stopped: bool) -> None:
        """Add sources whose outputs are finished. Raises InputError if the only source gave no frame."""
        for channel in channels:
            self._done.append(channel)
            if self._count > 1:
                logger.info("%s: %s", channel.source.name, _summary([channel], is_stopped))
            if is_stopped or channel.error is not None:
                continue
            try:
                check_frames(channel)
            except InputError as error:
                if self._count == 1:
                    raise
                self._warn(error)

    def finish(self, is_stopped: bool) -> bool:
        """Log a summary of all sources, and what is wrong with those that ended too early; return whether one failed."""
        for channel in self._done:
            is_complete = is_stopped or channel.statistics.frames in (0, self._max_frames)
            if channel.error or ((channel.source.fault or channel.source.dropped_frames) and not is_complete):
                self.failed += 1
        failed = f", {self.failed} failed" if self.failed else ""
        logger.info("%s%s", f"{self._count} sources{failed}: " if self._count > 1 else "", _summary(self._done, is_stopped))
        for channel in self._done:
            if channel.source.fault and channel.statistics.frames not in (0, self._max_frames) and not is_stopped:
                logger.warning("%s %s", channel.source.name, channel.source.fault)
        return self.failed > 0


def check_frames(channel: Channel) -> None:
    """Raise InputError if a source that has ended gave no frame."""
    if channel.statistics.frames == 0:
        hint = "is the camera free, the video whole, an MP4 that is streamed made with -movflags faststart?"
        raise InputError(f"{channel.source.name}: opened, but gave no image; {hint}")


def _summary(channels: Sequence[Channel], is_stopped: bool) -> str:
    """Return the frames, losses, faces, people, events and time of sources as one line."""
    losses = sum((channel.source.losses for channel in channels), Counter())
    counts = [channel.events.count for channel in channels if channel.events is not None]
    total = Statistics.total([channel.statistics for channel in channels])
    return total.summary(is_stopped, losses, sum(counts) if counts else None)
