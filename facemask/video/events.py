"""Tell of people without a mask: lines in a file, snapshots, a command."""

import json
import logging
import queue
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np

from facemask.errors import InputError
from facemask.io.images import write_image
from facemask.io.json_lines import JsonLines
from facemask.types import Track

logger = logging.getLogger(__name__)


class EventRecorder:
    """Makes an event when a track is settled on one of `alert` labels, and when such a track leaves."""

    def __init__(
        self,
        alert: Collection[str],
        file: JsonLines | None = None,
        snapshots: Path | None = None,
        command: "CommandRunner | None" = None,
        live: bool = False,
    ) -> None:
        """`snapshots` is a folder. Events of a `live` source carry the time of day as well, as "at"."""
        self._alert, self._file, self._snapshots, self._command, self._live = set(alert), file, snapshots, command, live
        self._told: dict[int, str] = {}  # the label last told, by track
        self.count = 0

    def update(self, tracks: Collection[Track], left: Collection[Track], picture: np.ndarray) -> None:
        """Look at the `tracks` of a frame and at those that `left` since the one before.

        `picture`, uint8 (H, W, 3) BGR, is the frame as a snapshot shows it. Raises InputError if an output fails.
        """
        self.leave(left)
        for track in tracks:
            if track.settled and track.label in self._alert and self._told.get(track.id) != track.label:
                self._told[track.id] = track.label
                self._tell("settled", track, picture)
            elif track.settled and track.label not in self._alert and track.id in self._told:
                self._told[track.id] = track.label  # so that it is told again if the mask comes off again

    def leave(self, tracks: Collection[Track]) -> None:
        """Tell of those `tracks` that are over and were told of before."""
        for track in tracks:
            if self._told.pop(track.id, None):
                self._tell("left", track)

    def _tell(self, event: str, track: Track, picture: np.ndarray | None = None) -> None:
        now = datetime.now(UTC)
        record = {
            "event": event,
            "track": track.id,
            "label": track.label,
            "probability": round(track.probability, 4),
            "first_time": round(track.first_time, 4),
            "last_time": round(track.last_time, 4),
            "frames": track.frames,
            "best_box": track.best_box,
            "best_time": round(track.best_time, 4),
        }
        if self._live:
            record["at"] = now.isoformat(timespec="milliseconds")
        if self._snapshots and picture is not None:
            stamp = f"{now:%Y%m%dT%H%M%S}" if self._live else f"{track.last_time:09.2f}s"
            name = f"{stamp}-{track.id:04d}-{track.label}"
            paths = (self._snapshots / f"{name}{f'-{number}' if number > 1 else ''}.jpg" for number in count(1))
            path = next(path for path in paths if not path.exists())  # another run's stays
            write_image(path, picture)
            record["snapshot"] = str(path)
        if self._file:
            self._file.write(record)
        if self._command:
            self._command.submit(json.dumps(record))
        self.count += 1


def _stderr() -> int | None:
    """Return where Python's stderr goes, which need not be the process' own (`facemask.cli.run`); None where it is no file."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):  # closed, or a test's
        return None


class CommandRunner(AbstractContextManager):
    """Runs a command for each event, one after the other in a thread of its own, the event on its standard input."""

    MOST_WAITING = 100  # events; more are dropped, with a warning
    TIME_LIMIT = 60.0  # s a run
    PATIENCE, HURRIED = 60.0, 8.0  # s, at the end, for those that wait; when a signal has ended the video

    def __init__(self, command: str) -> None:
        """`command` is split as a shell would, but run without one. Raises InputError if there is no such program."""
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise InputError(f"--on-event: {command!r} cannot be read ({error}); check the quotes") from error
        if not self._arguments or shutil.which(self._arguments[0]) is None:
            raise InputError(f"--on-event: no program {' '.join(self._arguments[:1])!r}; give its path, or put it on the PATH")
        self._waiting: queue.Queue[str | None] = queue.Queue(self.MOST_WAITING)
        self.patience = self.PATIENCE
        self._thread = threading.Thread(target=self._work, name="on-event", daemon=True)
        self._thread.start()

    def submit(self, event: str) -> None:
        """Have the command run with `event` on its standard input; returns at once."""
        try:
            self._waiting.put_nowait(event + "\n")
        except queue.Full:
            logger.warning("--on-event: %d events wait for %s; one is dropped", self.MOST_WAITING, self._arguments[0])

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                # In a session of its own: Ctrl-C is for us, and it may finish.
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
        deadline = time.monotonic() + self.patience
        if left := self._waiting.unfinished_tasks:
            logger.info("--on-event: %d events to go for %s, %g s at most", left, self._arguments[0], self.patience)
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        if left := self._waiting.unfinished_tasks:
            logger.warning("--on-event: %s was still busy; %d events are dropped", self._arguments[0], left)
        else:
            self._waiting.put(None)
            self._thread.join()
