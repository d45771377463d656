"""The server that pages share: where it listens, whom it answers, and how many at once."""

import http.client
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

import pytest

from facemask.errors import InputError
from facemask.serving import server as serving
from facemask.serving.pages import content_policy
from facemask.serving.server import PageHandler, PageServer

WAIT = 20  # s, for what happens in another thread


class Handler(PageHandler):
    policy = content_policy("<style>p {}</style><script>1</script>")

    def answer(self, path: str) -> None:
        if path == "/none":
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self.send("text/plain", b"here")


def serve(host: str = "127.0.0.1", port: int = 0) -> PageServer:
    return PageServer(Handler, host, port)


@pytest.fixture
def server() -> Iterator[PageServer]:
    with serve() as server:
        yield server


def get(server: PageServer, path: str = "/", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("", 403),
    ],
)
def test_other_names_of_this_machine_are_refused(server, name, status):
    assert get(server, Host=name).status == status


def test_other_names_are_right_where_others_may_watch():
    with serve("0.0.0.0") as server:
        assert not server.is_local
        assert get(server, Host="desk.example").status == 200


@pytest.mark.parametrize("path", ["/", "/none"])
def test_no_other_site_may_embed_it(server, path):
    headers = get(server, path).headers
    assert (headers["Cross-Origin-Resource-Policy"], headers["X-Frame-Options"]) == ("same-origin", "DENY")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy and "unsafe" not in policy


def test_port_taken(server):
    with pytest.raises(InputError) as error:
        serve(port=server.port)
    assert str(error.value) == (f"127.0.0.1:{server.port}: cannot listen (Address already in use); choose another port or host")


def test_port_taken_on_all_addresses(server):
    with pytest.raises(InputError, match="cannot listen"):
        serve("0.0.0.0", server.port)


@pytest.mark.skipif(sys.platform == "win32", reason="where there is SO_EXCLUSIVEADDRUSE, it is used")
def test_port_is_not_shared_on_windows(monkeypatch):
    """There SO_REUSEADDR lets two servers listen on one port; another option keeps others out."""
    options = []

    class Socket(socket.socket):
        def setsockopt(self, *arguments):
            options.append(arguments[:2])
            if arguments[1] != 4711:
                super().setsockopt(*arguments)

    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", 4711, raising=False)
    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(serving._Server, "allow_reuse_address", serving.reuses_address("win32"))
    with serve():
        pass
    assert (socket.SOL_SOCKET, 4711) in options and (socket.SOL_SOCKET, socket.SO_REUSEADDR) not in options
    assert (socket.SOL_SOCKET, socket.SO_REUSEPORT) not in options


def test_many_clients_at_once_are_let_in(monkeypatch):
    """They wait in the system's queue until they are accepted; a full queue makes a client wait a second or more."""
    accepting = threading.Event()
    process = serving._Server.process_request

    def hold(self, *arguments):
        accepting.wait(WAIT)
        process(self, *arguments)

    monkeypatch.setattr(serving._Server, "process_request", hold)
    with serve() as server:
        clients = []
        for _ in range(100):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", server.port))
            clients.append(client)
        waiting = [client for client in clients if not select.select([], [client], [], 0.5)[1]]
        accepting.set()
        assert waiting == []
        for client in clients:
            client.setblocking(True)
            client.settimeout(WAIT)
            client.sendall(b"GET /state HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert [client.recv(15) for client in clients] == [b"HTTP/1.0 200 OK"] * 100
        for client in clients:
            client.close()


def test_connections_are_limited(monkeypatch):
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 2)
    with serve() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), WAIT) for _ in range(2)]
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            get(server)
        for client in idle:
            client.close()
        deadline = time.monotonic() + WAIT
        status = 0
        while status != 200 and time.monotonic() < deadline:
            with suppress(http.client.RemoteDisconnected, ConnectionResetError):
                status = get(server).status
        assert status == 200


def test_no_such_host():
    with pytest.raises(InputError, match=r"192\.0\.2\.1:80: cannot listen \(.*\); choose another port or host"):
        serve("192.0.2.1", 80)
