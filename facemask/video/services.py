"""What all sources of a run share beside files of their own: who gets their events, MQTT, and the page."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from facemask.io.json_lines import JsonLines
from facemask.labels import WITH_MASK, alerts
from facemask.types import Event
from facemask.video.event_page import EventReport
from facemask.video.events import CommandRunner, EventReceiver, EventRecorder, EventWorker
from facemask.video.mqtt import MqttOutput, MqttPublisher, parse_broker
from facemask.video.notify import Notifier
from facemask.video.outputs import FrameOutput, Statistics
from facemask.video.sources import VideoSource

if TYPE_CHECKING:
    from facemask.video.live_server import LiveServer

logger = logging.getLogger(__name__)


class Services(AbstractContextManager):
    """Starts what is asked for, and ends it, with what is still to be delivered, when the block ends."""

    def __init__(
        self,
        events: Path | None = None,
        snapshots: Path | None = None,
        on_event: str | None = None,
        notify: Sequence[str] = (),
        mqtt: str | None = None,
        server: "LiveServer | None" = None,
        report: Path | None = None,
    ) -> None:
        """`events` is a file for JSON lines, `snapshots` a folder, `on_event` a command, `notify` are URLs for apprise,
        `mqtt` is a broker and a topic, `report` an HTML page of the events.

        Raises InputError if one cannot be used, ImportError if its package is not installed.
        """
        self._events, self._snapshots, self._server = events, snapshots, server
        self._lines: JsonLines | None = None
        self._is_warned = False
        self._report = EventReport(report) if report else None
        with ExitStack() as stack:
            self._workers: list[EventWorker] = [] if on_event is None else [stack.enter_context(CommandRunner(on_event))]
            self._workers += [stack.enter_context(Notifier(url)) for url in notify]
            self._mqtt = stack.enter_context(MqttPublisher(parse_broker(mqtt))) if mqtt is not None else None
            self._stack = stack.pop_all()

    def outputs_of(
        self, source: VideoSource, prefix: str, labels: Sequence[str], statistics: Statistics
    ) -> tuple[list[FrameOutput], EventRecorder | None]:
        """Return the outputs of a source, to be closed before this is, and the one of them that makes events, if there is one.

        The names of its snapshots begin with `prefix`. `labels` are the model's. `statistics` receive each frame before
        these outputs. Raises InputError if the file of events cannot be written.
        """
        outputs: list[FrameOutput] = []
        recorder: EventRecorder | None = None
        receivers: list[EventReceiver] = [worker.submit for worker in self._workers]
        if self._events:
            if self._lines is None:
                self._lines = self._stack.enter_context(JsonLines(self._events))
            receivers.append(_write_to(self._lines))
        if self._report:
            receivers.append(self._report.receive)
        if self._mqtt:
            published = MqttOutput(self._mqtt, source.name, labels, statistics)
            outputs.append(published)
            receivers.append(published.submit)
        if self._server:
            from facemask.video.live_page import LivePage  # here, as it takes long to import

            outputs.append(LivePage(self._server.add_camera(source.name), statistics))
            receivers.append(self._server.add_event)
        if receivers or self._snapshots:
            if WITH_MASK not in labels and not self._is_warned:
                logger.warning("the model has no class %s: every label is an event", WITH_MASK)
                self._is_warned = True
            with_images = bool(self._server or self._report) or any(worker.uses_images for worker in self._workers)
            recorder = EventRecorder(alerts(labels), source.name, receivers, self._snapshots, source.is_live, prefix, with_images)
            outputs.append(recorder)  # the last: it is closed first, and its last events come before the others' end
        return outputs, recorder

    def hurry(self) -> None:
        """At the end, wait less for what is still to be delivered, as after a signal."""
        for worker in self._workers:
            worker.exit_timeout = worker.EXIT_TIMEOUT_ON_SIGNAL

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)
        if self._report and kind is None:
            self._report.write()


def _write_to(lines: JsonLines) -> EventReceiver:
    def receive(event: Event) -> None:
        lines.write(event.record)

    return receive
