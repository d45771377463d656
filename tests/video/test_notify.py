"""--notify: notifications by apprise, to a web server on this machine."""

import base64
import json
import logging
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from facemask.errors import InputError
from facemask.types import Event
from facemask.video import notify
from facemask.video.notify import Notifier, message
from tests.helpers import ROOT

pytest.importorskip("apprise", reason="needs apprise: pip install apprise")

WAIT = 20  # s, for what happens in another thread
RECORD = {"event": "confirmed", "track": 3, "label": "without_mask", "probability": 0.934, "unsure": False, "last_time": 2.54}


class Service:
    """A web server that notifications are sent to; it answers with `codes` in turn, then with 200."""

    def __init__(self, *codes: int) -> None:
        self.received: list[dict] = []
        self.go_on = threading.Event()
        self.go_on.set()
        waiting, service = list(codes), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.go_on.wait(WAIT)
                code = waiting.pop(0) if waiting else 200
                if code == 200:
                    service.received.append(received)
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"json://user:secret@{self.host}/token"

    def __enter__(self) -> "Service":
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def messages(caplog) -> list[str]:
    """Return what was logged, except by apprise: a script does not print that."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("facemask")]


@pytest.fixture(autouse=True)
def without_waits(monkeypatch):
    monkeypatch.setattr(notify, "BACKOFF", (0.01, 0.01, 0.01, 0.01))


def event(track: int = 3, jpeg: bytes | None = None, **changes: object) -> Event:
    return Event({**RECORD, "track": track, **changes}, jpeg)


def test_notification_with_its_snapshot(caplog):
    caplog.set_level(logging.INFO)
    with Service() as service, Notifier(service.url) as notifier:
        notifier.submit(event(3, b"\xff\xd8jpeg"))
        notifier.submit(event(3, event="ended"))  # of those who leave, none
        notifier.submit(event(4))
    with_image, without = service.received
    assert (with_image["title"], with_image["message"], with_image["type"]) == (
        "No mask: person 3", "No mask, 93%: person 3, 2.5 s", "warning",
    )  # fmt: skip
    (attached,) = with_image["attachments"]
    assert (attached["filename"], attached["mimetype"]) == ("snapshot.jpg", "image/jpeg")
    assert base64.b64decode(attached["base64"]) == b"\xff\xd8jpeg"
    assert (without["title"], without["attachments"]) == ("No mask: person 4", [])
    assert messages(caplog)[-1] == f"--notify: json://{service.host}: 2 events sent"


def test_message_names_the_source_and_the_time_of_day():
    record = {**RECORD, "source": "camera 0", "at": "2026-11-26T14:03:22.000+00:00", "unsure": True}
    assert message(record) == ("No mask?: person 3", "No mask?, 93%: camera 0, person 3, 2026-11-26T14:03:22.000+00:00")


def lasting(caplog) -> list[str]:
    """Return the messages but those of how many events are still to go, which come on a slow machine."""
    return [text for text in messages(caplog) if "to go for" not in text]


def test_failure_is_said_once_and_tried_again(caplog):
    caplog.set_level(logging.INFO)
    with Service(500, 503, 200, 200, 500) as service, Notifier(service.url) as notifier:
        for track in range(3):
            notifier.submit(event(track, b"jpeg"))
    assert [each["title"] for each in service.received] == [f"No mask: person {track}" for track in range(3)]
    assert all(each["attachments"][0]["base64"] == base64.b64encode(b"jpeg").decode() for each in service.received)
    url = f"json://{service.host}"
    texts = lasting(caplog)
    assert [text.partition(" (")[0] for text in texts] == [
        f"--notify: {url} failed", f"--notify: {url} works again",
        f"--notify: {url} failed", f"--notify: {url} works again",
        f"--notify: {url}: 3 events sent",
    ]  # fmt: skip
    assert "error=500" in texts[0] and texts[0].endswith("); trying again")
    assert not any(secret in text for text in texts for secret in ("secret", "token"))


def test_service_that_is_not_there(caplog):
    with Notifier("json://127.0.0.1:9") as notifier:
        notifier.submit(event())
        notifier.submit(event())
    url = "json://127.0.0.1:9"
    assert lasting(caplog) == [
        f"--notify: {url} failed (A Connection error occurred sending JSON notification to 127.0.0.1.); trying again",
        f"--notify: {url}: 0 events sent, 2 failed",
    ]


def test_video_does_not_wait_and_what_is_dropped_is_counted(monkeypatch, caplog):
    monkeypatch.setattr(Notifier, "MAX_WAITING", 2)
    with Service() as service:
        service.go_on.clear()
        with Notifier(service.url) as notifier:
            notifier.submit(event(0))
            deadline = time.monotonic() + WAIT
            while notifier._waiting.qsize() and time.monotonic() < deadline:
                time.sleep(0.01)
            for track in (1, 2, 3, 4):
                notifier.submit(event(track))
            assert service.received == []
            service.go_on.set()
    assert [each["title"] for each in service.received] == [f"No mask: person {track}" for track in range(3)]
    url = f"json://{service.host}"
    assert lasting(caplog) == [
        f"--notify: 2 events wait for {url}; more are dropped",
        f"--notify: {url}: 3 events sent, 2 dropped",
    ]


def test_the_end_does_not_wait_for_further_tries(monkeypatch, caplog):
    monkeypatch.setattr(notify, "BACKOFF", (WAIT, WAIT))
    start = time.monotonic()
    with Notifier("json://127.0.0.1:9") as notifier:
        notifier.exit_timeout = 0.1
        notifier.submit(event())
    notifier._thread.join(WAIT / 2)
    assert notifier.failed == 1 and time.monotonic() - start < WAIT
    ends = ("1 dropped", "1 failed, 1 dropped")  # on a slow machine the failure is known before the end is said
    assert messages(caplog)[-1] in [f"--notify: json://127.0.0.1:9: 0 events sent, {end}" for end in ends]


@pytest.mark.parametrize(
    ("url", "shown"),
    [("nowhere://secret", " nowhere://…"), ("json://", " json://…"), ("tgram://secret", " tgram://…"), ("secret", ""), ("", "")],
)
def test_url_that_apprise_does_not_know(caplog, url, shown):
    with pytest.raises(InputError) as error:
        Notifier(url)
    assert str(error.value) == f"--notify{shown}: not a URL that apprise knows; its forms are at https://appriseit.com/services/"
    assert messages(caplog) == [] and not logging.getLogger("apprise").propagate  # it logs the URL


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("json://me:secret@desk.example:8080/secret?secret=1", "json://desk.example:8080"),
        ("ntfy://secret-topic", "ntfys://s…"),
        ("tgram://123456789:abcdefg_hijklmnop/12345", "tgram://1...p"),
        ("https://discord.com/api/webhooks/1234567890/abcdefghijklmnop", "discord://1...0"),
    ],
)
def test_secrets_are_not_shown(url, shown):
    with Notifier(url) as notifier:
        assert notifier._receiver == shown


def test_missing_package_is_one_line():
    code = "import sys; sys.modules['apprise'] = None; import detect_mask_video as d; sys.exit(d.main(sys.argv[1:]))"
    arguments = ["-i", "none.mp4", "--notify", "json://127.0.0.1:9", "--no-show"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1, "error: apprise: is not installed; pip install -r requirements-notify.txt",
    )  # fmt: skip
