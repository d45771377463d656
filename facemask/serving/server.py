"""Serve a page to browsers: listening, encryption, limits, and who is answered."""

import ipaddress
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, TypeVar
from urllib.parse import parse_qs, urlsplit

from facemask.errors import InputError, one_line
from facemask.serving.page_access import Access, basic_password, make_password, tls_context
from facemask.serving.pages import LOGIN_PAGE

SEND_TIMEOUT = 5.0  # s that a browser may take to accept a part of an answer, or for its request; then it is dropped
MAX_CONNECTIONS = 128  # at once
MAX_FORM = 4096  # bytes
MAX_DROPPED = 1 << 24  # bytes of a request that is refused: so many are received, so that the browser reads the answer
CHUNK = 1 << 16  # bytes received or sent at once
POLL = 0.1  # s, after which the server notices that it is to stop
PASSWORD_VARIABLE = "FACEMASK_PASSWORD"

logger = logging.getLogger(__name__)


class PageServer(AbstractContextManager):
    """An HTTP server with a page; each browser is served in a thread of its own."""

    invitation: ClassVar[str] = "open"  # before the address, in the message that names it

    def __init__(
        self,
        handler: type["PageHandler"],
        host: str,
        port: int,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen, and let a `handler` answer each request; with a `password`, only those who have it get anything.

        Raises InputError if it cannot listen. Port 0 is any free one; `url` has it.
        """
        self.access = Access(password) if password else None
        self.tls = tls
        self.is_local = is_local_host(host)
        try:
            self._server = _Server(self, handler, host, port)
        except (OSError, TypeError, UnicodeError) as error:  # the latter two if the name is not a host name
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{host}:{port}: cannot listen ({reason}); choose another port or host") from error
        shown = f"[{host}]" if ":" in host else host
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL,), name="serve", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


Served = TypeVar("Served", bound=PageServer)


def open_page(
    server: Callable[[str, int, str | None, ssl.SSLContext | None], Served],
    address: tuple[str, int],
    password: str | None,
    certificate: Path | None,
    key: Path | None,
) -> Served:
    """Start `server`, a class of PageServer, at `address`, a host and a port, and say where it is.

    Without `password` the environment variable FACEMASK_PASSWORD holds it. Without both, one is made and printed if other
    machines reach the page. `certificate` and `key` are files in PEM format. Raises InputError if one cannot be used.
    """
    host, port = address
    is_local = is_local_host(host)
    tls = tls_context(certificate, key) if certificate else None
    given = password or os.environ.get(PASSWORD_VARIABLE)
    made = None if given or is_local else make_password()
    page = server(host, port, given or made, tls)
    logger.info("%s %s%s", page.invitation, page.url, f" with the password {made}" if made else "")
    if not is_local and tls is None:
        logger.warning("whoever is on the network between can read the password and the images; --tls-cert encrypts")
    return page


def reuses_address(platform: str) -> bool:
    """Return whether SO_REUSEADDR is right: on Windows it would let two runs listen on one port."""
    return platform != "win32"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # connections that wait to be accepted; with the default of 5 some wait for seconds
    allow_reuse_port = False  # two runs never share a port
    allow_reuse_address = reuses_address(sys.platform)

    def __init__(self, page: PageServer, handler: type["PageHandler"], host: str, port: int) -> None:
        self.page = page
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        super().server_bind()

    def process_request(self, request, client_address) -> None:
        if self.connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def finish_request(self, request, client_address) -> None:
        if self.page.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(SEND_TIMEOUT)
        with self.page.tls.wrap_socket(request, server_side=True) as encrypted:  # in this thread: others do not wait
            super().finish_request(encrypted, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: browsers come and go."""


class PageHandler(BaseHTTPRequestHandler):
    """Answers one browser, if its request is for this machine and it has the password."""

    server: _Server
    page: PageServer
    policy: ClassVar[str]  # of the content: `pages.content_policy`

    timeout = SEND_TIMEOUT
    server_version, sys_version = "facemask", ""

    def setup(self) -> None:
        self.page = self.server.page
        super().setup()

    def answer(self, path: str) -> None:
        """Answer a GET of a browser that was let in."""
        raise NotImplementedError

    def receive(self, path: str) -> None:
        """Answer a POST, from this page, of a browser that was let in."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def do_GET(self) -> None:
        if not self._is_named_right():
            self.send_error(HTTPStatus.FORBIDDEN, "open it as localhost or 127.0.0.1")
        elif self._is_let_in():
            self.answer(urlsplit(self.path).path)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        self._unread = int(length) if length.isdecimal() else 0
        self._answer_post()
        if self._unread:  # else the system drops an answer that the browser has not read yet
            with suppress(OSError):
                self.read_body(min(self._unread, MAX_DROPPED), SEND_TIMEOUT)

    def _answer_post(self) -> None:
        if not self._is_named_right() or not self._is_from_here():
            self.send_error(HTTPStatus.FORBIDDEN, "not from this page")
        elif self.page.access is not None and self.path == "/login":
            self._log_in(self.page.access)
        elif self._is_let_in():
            self.receive(urlsplit(self.path).path)

    def _log_in(self, access: Access) -> None:
        """Receive the password of the login form."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_FORM:
            self.send_error(HTTPStatus.BAD_REQUEST, "not a login form")
            return
        form = parse_qs(self.read_body(int(length), SEND_TIMEOUT).decode(errors="replace"))
        is_right = access.check(form.get("password", [""])[0], self.client_address[0])
        if is_right:
            cookie = access.cookie(self._cookie_name(), self.page.tls is not None)
            self.head("text/plain", 0, HTTPStatus.SEE_OTHER, {"Set-Cookie": cookie, "Location": "/"})
        else:
            self._ask_for_password("too many wrong passwords: wait a minute" if is_right is None else "wrong password", is_right)

    def _is_named_right(self) -> bool:
        """Return whether the Host is this machine, as a foreign page may make its own name mean it (DNS rebinding).

        Where a password is asked for, the browser gives the cookie to no other name.
        """
        return not self.page.is_local or _is_local_name(self.headers.get("Host", ""))

    def _is_from_here(self) -> bool:
        """Return whether a form was sent by this page, as far as the browser says from which it came."""
        origin = self.headers.get("Origin")
        return origin in (None, "null") or urlsplit(origin).netloc == self.headers.get("Host")

    def _cookie_name(self) -> str:
        return f"facemask_{self.page.port}"  # browsers do not keep the cookies of ports apart

    def _is_let_in(self) -> bool:
        """Return whether the request may be answered, or ask for the password."""
        access = self.page.access
        if access is None or access.has_cookie(self.headers, self._cookie_name()):
            return True
        password = basic_password(self.headers)
        if password is None:
            self._ask_for_password("", False)
            return False
        is_right = access.check(password, self.client_address[0])
        if not is_right:
            self._ask_for_password("", is_right)
        return bool(is_right)

    def _ask_for_password(self, message: str, is_right: bool | None) -> None:
        """Refuse, with a form for a person at a browser; `is_right` is None after too many wrong passwords."""
        status = HTTPStatus.TOO_MANY_REQUESTS if is_right is None else HTTPStatus.UNAUTHORIZED
        headers = {"Retry-After": "60"} if is_right is None else {}
        is_page = "text/html" in self.headers.get("Accept", "")
        if not is_page and "X-Page" not in self.headers:  # as of a video player; the page itself would open a dialogue
            headers["WWW-Authenticate"] = 'Basic realm="Face masks", charset="UTF-8"'
        if is_page:
            self.send("text/html; charset=utf-8", LOGIN_PAGE.replace("<!--message-->", message).encode(), status, headers)
        else:
            self.send("text/plain; charset=utf-8", f"{status.phrase}\n".encode(), status, headers)

    def read_body(self, length: int, seconds: float) -> bytes:
        """Return the next `length` bytes of the request's body. Raises OSError if they do not come within `seconds`."""
        deadline, parts = time.monotonic() + seconds, []
        while length:
            part = self.rfile.read1(min(length, CHUNK))
            if not part or time.monotonic() > deadline:
                raise TimeoutError("the browser has gone, or is too slow")
            parts.append(part)
            length -= len(part)
            self._unread -= len(part)
        return b"".join(parts)

    def refuse(self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer with one line of text, which the page shows."""
        self.send("text/plain; charset=utf-8", f"{one_line(message)}\n".encode(), status, headers)

    def send(self, kind: str, body: bytes, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> None:
        """Answer with `body`, whose media type is `kind`."""
        self.head(kind, len(body), status, headers)
        rest = memoryview(body)
        while rest:  # in parts, as the limit of time is one for each write
            self.wfile.write(rest[:CHUNK])
            rest = rest[CHUNK:]

    def head(
        self, kind: str, length: int | None = None, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
    ) -> None:
        """Begin an answer of `length` bytes, None if it is open, whose media type is `kind`."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.policy)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")  # no other site may embed it
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def is_local_host(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on `host`."""
    return host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    """Return whether a request's Host, with or without a port, names this machine."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name == "localhost" or _is_loopback(name.strip("[]"))
