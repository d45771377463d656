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
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np

from facemask.errors import InputError
from facemask.io.images import encode_image, write_image
from facemask.types import Event, FrameResult, Track
from facemask.video.frame_images import FrameImages
from facemask.video.outputs import FrameOutput

CONFIRMED, ENDED = "confirmed", "ended"  # kinds of events

logger = logging.getLogger(__name__)
EventReceiver = Callable[[Event], None]  # must not wait


def track_record(track: Track) -> dict:
    """Return a track as a dictionary for JSON, its zone only if there are some."""
    return {
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
        with_images: bool = False,
    ) -> None:
        """`source` is the name of the source in events. Events of a live one carry the time of day as well, as "at".

        `snapshots` is a folder, in which the names of images begin with `prefix`. `with_images`: the receivers get an image
        with each event of the first kind.
        """
        self._alerts, self._source, self._receivers = set(alerts), source, receivers
        self._snapshots, self._is_live, self._prefix = snapshots, is_live, prefix
        self._reported: dict[int, Track] = {}  # tracks with an event, as they were last, by ID
        self._with_images = with_images
        self.count = 0  # events

    def write(self, result: FrameResult, images: FrameImages) -> None:
        """Report the tracks of a frame, and take their snapshots. Raises InputError if a receiver fails."""
        for track in result.ended:
            if self._reported.pop(track.id, None):
                self._report(ENDED, track)
        for track in result.tracks:
            previous = self._reported.get(track.id)
            is_alert = track.confirmed and track.label in self._alerts and track.zone is not None
            if is_alert and (previous is None or previous.confirmed_label != track.label):
                self._report(CONFIRMED, track, images)
            if is_alert or previous:
                zone = previous.zone if previous is not None and track.zone is None else track.zone
                self._reported[track.id] = replace(track, zone=zone)

    def close(self) -> None:
        for track in self._reported.values():
            self._report(ENDED, track)
        self._reported.clear()

    def _report(self, event: str, track: Track, images: FrameImages | None = None) -> None:
        now = datetime.now(UTC)
        record = {"event": event, "source": self._source} | track_record(track)
        if self._is_live:
            record["at"] = now.isoformat(timespec="milliseconds")
        image = images.marked(track.id) if images and (self._snapshots or self._with_images) else None
        if self._snapshots and image is not None:
            record["snapshot"] = str(self._save(self._snapshots, track, image, now))
        jpeg = encode_image(image, ".jpg") if self._with_images and image is not None else None
        for receive in self._receivers:
            receive(Event(record, jpeg))
        self.count += 1

    def _save(self, folder: Path, track: Track, image: np.ndarray, now: datetime) -> Path:
        """Write a snapshot under a name that is free, as another run's may be there; return its path."""
        stamp = f"{now:%Y%m%dT%H%M%S}" if self._is_live else f"{track.last_time:09.2f}s"
        name = f"{self._prefix}{stamp}-{track.id:04d}-{track.label}"
        paths = (folder / f"{name}{f'-{number}' if number > 1 else ''}.jpg" for number in count(1))
        path = next(path for path in paths if not path.exists())
        write_image(path, image)
        return path


class EventWorker(AbstractContextManager, ABC):
    """Handles events one after the other in a thread of its own; the video does not wait for it.

    A context manager: at its end, the events that wait are handled for `exit_timeout` seconds at most, and one line says
    how many were handled, failed and dropped.
    """

    MAX_WAITING = 100  # events; more are dropped
    EXIT_TIMEOUT, EXIT_TIMEOUT_ON_SIGNAL = 60.0, 8.0  # s, at the end, for the events that wait
    uses_images = False  # of events

    def __init__(self, option: str, receiver: str, done: str) -> None:
        """Messages begin with `option`, call who gets the events `receiver`, and a handled event `done`, as "sent"."""
        self._option, self._receiver, self._done = option, receiver, done
        self.handled = self.failed = self.dropped = 0  # events
        self.exit_timeout = self.EXIT_TIMEOUT
        self.is_ending = threading.Event()  # no more waiting: no time is left, or the last event has been handled
        self._waiting: queue.Queue[Event | None] = queue.Queue(self.MAX_WAITING)
        self._thread = threading.Thread(target=self._work, name=option.strip("-"), daemon=True)
        self._thread.start()

    @abstractmethod
    def handle(self, event: Event) -> bool:
        """Do what an event asks for, in this worker's thread; return whether it was done."""

    def submit(self, event: Event) -> None:
        """Have an event handled later; returns at once. If too many wait, it is dropped, which the first time is said."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            if not self.dropped:
                logger.warning("%s: %d events wait for %s; more are dropped", self._option, self.MAX_WAITING, self._receiver)
            self.dropped += 1

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            if self.handle(event):
                self.handled += 1
            else:
                self.failed += 1
            self._waiting.task_done()

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + self.exit_timeout
        if waiting := self._waiting.unfinished_tasks:
            logger.info("%s: %d events to go for %s, %g s at most", self._option, waiting, self._receiver, self.exit_timeout)
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        self.is_ending.set()
        if waiting := self._waiting.unfinished_tasks:
            logger.warning("%s: %s was still busy", self._option, self._receiver)
            self.dropped += waiting
        else:
            self._waiting.put(None)
            self._thread.join()
        if self.handled + self.failed + self.dropped:
            losses = [f"{number} {what}" for number, what in ((self.failed, "failed"), (self.dropped, "dropped")) if number]
            counts = ", ".join([f"{self.handled} events {self._done}", *losses])
            logger.log(logging.WARNING if losses else logging.INFO, "%s: %s: %s", self._option, self._receiver, counts)


def _stderr() -> int | None:
    """Return where Python's stderr goes, which need not be the process' own (`facemask.cli.run`); None if it is not a file."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):  # closed, or a test's
        return None


def split_command(command: str, platform: str) -> list[str]:
    """Split a command as a POSIX shell does, except that a backslash is a character of a path on Windows.

    `platform` is a `sys.platform`. Raises ValueError if a quote is not closed.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if platform == "win32":
        lexer.escape = ""
    return list(lexer)


class CommandRunner(EventWorker):
    """Runs a command for each event, one after the other, the event as a JSON line on its standard input."""

    TIME_LIMIT = 60.0  # s per run

    def __init__(self, command: str) -> None:
        """`command` is split as a shell would, but run without one. Raises InputError if there is no such program."""
        try:
            self._arguments = split_command(command, sys.platform)
        except ValueError as error:
            raise InputError(f"--on-event: {command!r} cannot be read ({error}); check the quotes") from error
        if not self._arguments or shutil.which(self._arguments[0]) is None:
            raise InputError(f"--on-event: no program {' '.join(self._arguments[:1])!r}; give its path, or put it on the PATH")
        super().__init__("--on-event", self._arguments[0], "handled")

    def handle(self, event: Event) -> bool:
        try:
            # In a session of its own: Ctrl-C ends the video, and the command may finish.
            code = subprocess.run(
                self._arguments,
                input=json.dumps(event.record).encode() + b"\n",
                stderr=_stderr(),
                timeout=self.TIME_LIMIT,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
                check=False,
            ).returncode
            problem = f"ended with code {code}" if code else ""
        except subprocess.TimeoutExpired:
            problem = f"took over {self.TIME_LIMIT:.0f} s and was ended"
        except OSError as error:
            problem = f"cannot be run ({error.strerror})"
        if problem:
            logger.warning("--on-event: %s %s", self._arguments[0], problem)
        return not problem
