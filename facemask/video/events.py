"""Report people without a mask: events for files, commands and whoever else receives them, and snapshots."""

import json
import logging
import queue
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np

from facemask.errors import InputError
from facemask.io.images import write_image
from facemask.types import FrameResult, Track
from facemask.video.outputs import FrameOutput

CONFIRMED, ENDED = "confirmed", "ended"  # kinds of events

logger = logging.getLogger(__name__)
EventReceiver = Callable[[dict], None]  # takes an event, as a dictionary for JSON; must not wait


class EventRecorder(FrameOutput):
    """Makes an event when the label of a track is confirmed as one of `alerts`, and when such a track ends.

    Where there are zones, the track must be in one. Tracks that go on at the end of the video end when this output is closed.
    """

    def __init__(
        self,
        alerts: Collection[str],
        source: str,
        receivers: Sequence[EventReceiver] = (),
        snapshots: Path | None = None,
        is_live: bool = False,
        prefix: str = "",
    ) -> None:
        """`source` is the name of the source in events. Events of a live one carry the time of day as well, as "at".

        `snapshots` is a folder, in which the names of images begin with `prefix`.
        """
        self._alerts, self._source, self._receivers = set(alerts), source, receivers
        self._snapshots, self._is_live, self._prefix = snapshots, is_live, prefix
        self._reported: dict[int, Track] = {}  # tracks with an event, as they were last, by ID
        self.shows_image = snapshots is not None
        self.count = 0  # events

    def write(self, result: FrameResult, image: np.ndarray) -> None:
        """Report the tracks of a frame; `image` is saved as their snapshot. Raises InputError if a receiver fails."""
        for track in result.ended:
            if self._reported.pop(track.id, None):
                self._report(ENDED, track)
        for track in result.tracks:
            previous = self._reported.get(track.id)
            is_alert = track.confirmed and track.label in self._alerts and track.zone is not None
            if is_alert and (previous is None or previous.confirmed_label != track.label):
                self._report(CONFIRMED, track, image)
            if is_alert or previous:
                zone = previous.zone if previous is not None and track.zone is None else track.zone
                self._reported[track.id] = replace(track, zone=zone)

    def close(self) -> None:
        for track in self._reported.values():
            self._report(ENDED, track)
        self._reported.clear()

    def _report(self, event: str, track: Track, image: np.ndarray | None = None) -> None:
        now = datetime.now(UTC)
        record = {
            "event": event,
            "source": self._source,
            "track": track.id,
            **({} if track.zone == "" else {"zone": track.zone}),
            "label": track.label,
            "probability": round(track.probability, 4),
            "unsure": track.is_unsure,
            "first_time": round(track.first_time, 4),
            "last_time": round(track.last_time, 4),
            "frames": track.frames,
            "best_box": track.best_box,
            "best_time": round(track.best_time, 4),
        }
        if self._is_live:
            record["at"] = now.isoformat(timespec="milliseconds")
        if self._snapshots and image is not None:
            record["snapshot"] = str(self._save(self._snapshots, track, image, now))
        for receive in self._receivers:
            receive(record)
        self.count += 1

    def _save(self, folder: Path, track: Track, image: np.ndarray, now: datetime) -> Path:
        """Write a snapshot under a name that is free, as another run's may be there; return its path."""
        stamp = f"{now:%Y%m%dT%H%M%S}" if self._is_live else f"{track.last_time:09.2f}s"
        name = f"{self._prefix}{stamp}-{track.id:04d}-{track.label}"
        paths = (folder / f"{name}{f'-{number}' if number > 1 else ''}.jpg" for number in count(1))
        path = next(path for path in paths if not path.exists())
        write_image(path, image)
        return path


def _stderr() -> int | None:
    """Return where Python's stderr goes, which need not be the process' own (`facemask.cli.run`); None if it is not a file."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):  # closed, or a test's
        return None


class CommandRunner(AbstractContextManager):
    """Runs a command for each event, one after the other in a thread of its own, the event on its standard input."""

    MAX_WAITING = 100  # events; more are dropped, with a warning
    TIME_LIMIT = 60.0  # s per run
    EXIT_TIMEOUT, EXIT_TIMEOUT_ON_SIGNAL = 60.0, 8.0  # s, at the end, for the events that wait

    def __init__(self, command: str) -> None:
        """`command` is split as a shell would, but run without one. Raises InputError if there is no such program."""
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise InputError(f"--on-event: {command!r} cannot be read ({error}); check the quotes") from error
        if not self._arguments or shutil.which(self._arguments[0]) is None:
            raise InputError(f"--on-event: no program {' '.join(self._arguments[:1])!r}; give its path, or put it on the PATH")
        self._waiting: queue.Queue[str | None] = queue.Queue(self.MAX_WAITING)
        self.exit_timeout = self.EXIT_TIMEOUT
        self._thread = threading.Thread(target=self._work, name="on-event", daemon=True)
        self._thread.start()

    def submit(self, event: dict) -> None:
        """Have the command run with `event` as a JSON line on its standard input; returns at once."""
        try:
            self._waiting.put_nowait(json.dumps(event) + "\n")
        except queue.Full:
            logger.warning("--on-event: %d events wait for %s; one is dropped", self.MAX_WAITING, self._arguments[0])

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                # In a session of its own: Ctrl-C ends the video, and the command may finish.
                code = subprocess.run(
                    self._arguments,
                    input=event.encode(),
                    stderr=_stderr(),
                    timeout=self.TIME_LIMIT,
                    start_new_session=True,
                    check=False,
                ).returncode
                if code:
                    logger.warning("--on-event: %s ended with code %d", self._arguments[0], code)
            except subprocess.TimeoutExpired:
                logger.warning("--on-event: %s took over %.0f s and was ended", self._arguments[0], self.TIME_LIMIT)
            except OSError as error:
                logger.warning("--on-event: %s cannot be run (%s)", self._arguments[0], error.strerror)
            self._waiting.task_done()

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + self.exit_timeout
        if waiting := self._waiting.unfinished_tasks:
            logger.info("--on-event: %d events to go for %s, %g s at most", waiting, self._arguments[0], self.exit_timeout)
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        if waiting := self._waiting.unfinished_tasks:
            logger.warning("--on-event: %s was still busy; %d events are dropped", self._arguments[0], waiting)
        else:
            self._waiting.put(None)
            self._thread.join()
