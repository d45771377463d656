"""Send events to people, by mail, messengers and webhooks: whatever apprise knows."""

import logging
import threading

from facemask.errors import InputError
from facemask.labels import display_name, percent
from facemask.types import Event
from facemask.video.events import CONFIRMED, EventWorker

BACKOFF = (2.0, 5.0, 15.0, 30.0)  # s before each further try to send a notification; then it has failed

logger = logging.getLogger(__name__)


class Notifier(EventWorker):
    """Sends a notification, with the snapshot, for each person who is confirmed as without a mask or with one worn wrong.

    The events of people who leave are not sent.
    """

    uses_images = True

    def __init__(self, url: str) -> None:
        """`url` is one of apprise's, as mailto://… or json://…; messages do not show its secrets.

        Raises InputError if apprise does not know it, ImportError if apprise is not installed.
        """
        import apprise
        from apprise.attachment.memory import AttachMemory

        self._problems = _Problems()
        with self._problems:
            self._service = apprise.Apprise.instantiate(url)
        if self._service is None:
            shown = f" {url.partition('://')[0]}://…" if "://" in url else ""
            raise InputError(f"--notify{shown}: not a URL that apprise knows; its forms are at https://appriseit.com/services/")
        self._attachment, self._kind = AttachMemory, apprise.NotifyType.WARNING
        self._is_failing = False
        super().__init__("--notify", _without_secrets(self._service.url(privacy=True)), "sent")

    def submit(self, event: Event) -> None:
        if event.record["event"] == CONFIRMED:
            super().submit(event)

    def handle(self, event: Event) -> bool:
        title, body = message(event.record)
        for wait in (*BACKOFF, None):
            # A new one each time: it is read to its end
            attachment = self._attachment(event.jpeg, name="snapshot.jpg", mimetype="image/jpeg") if event.jpeg else None
            if self._send(title, body, attachment):
                if self._is_failing:
                    logger.info("--notify: %s works again", self._receiver)
                self._is_failing = False
                return True
            if not self._is_failing:
                logger.warning("--notify: %s failed (%s); trying again", self._receiver, self._problems.last)
            self._is_failing = True
            if wait is None or self.is_ending.wait(wait):
                break
        return False

    def _send(self, title: str, body: str, attachment: object) -> bool:
        with self._problems:
            try:
                return bool(self._service.notify(body=body, title=title, notify_type=self._kind, attach=attachment))
            except Exception as error:  # a plug-in's, of which there are over a hundred
                self._problems.last = str(error) or type(error).__name__
                return False


def message(record: dict) -> tuple[str, str]:
    """Return the title and the text of the notification for an event."""
    label = display_name(record["label"], record["unsure"])
    when = record.get("at") or f"{record['last_time']:.1f} s"
    where = f"{record['source']}, " if "source" in record else ""
    probability, person = percent(record["probability"]), f"person {record['track']}"
    return f"{label}: {person}", f"{label}, {probability}: {where}{person}, {when}"


def _without_secrets(url: str) -> str:
    """Return the scheme and the host of a URL, since the rest may be secret; so may a host that is not one, as ntfy's topic."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("?")[0].partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{host if '.' in host or host.startswith('localhost') else host[:1] + '…'}"


class _Problems(logging.Handler):
    """Keeps what apprise logs of this thread, instead of having it printed: it says why something failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self._logger = logging.getLogger("apprise")

    def __enter__(self) -> "_Problems":
        self.last, self._thread = "no reason given", threading.get_ident()
        self._logger.propagate = False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.last = record.getMessage().strip()
