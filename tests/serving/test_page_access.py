"""Who may see the live page: the password, its limits, and encryption."""

import base64
import http.client
import logging
import re
import ssl
import subprocess
from pathlib import Path

import numpy as np
import pytest

from facemask.errors import InputError
from facemask.serving import page_access
from facemask.serving import server as serving
from facemask.serving.page_access import Access, make_password, tls_context
from facemask.serving.server import open_page
from facemask.types import FrameResult
from facemask.video.frame_images import FrameImages
from facemask.video.live_server import LiveServer, State
from tests.video.browser import Browser, needs_chromium

WAIT = 20  # s
PASSWORD = "mäsk:en 1"
CERTIFICATE, KEY = (Path(__file__).with_name(name) for name in ("tls_cert.pem", "tls_key.pem"))
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


def show(server: LiveServer) -> None:
    image = np.full((60, 80, 3), 90, np.uint8)
    server.add_camera("door").show(FrameImages(image, FrameResult(0, 0.0, [], [], [], [])), State(1))


@pytest.fixture
def server():
    with LiveServer("127.0.0.1", 0, PASSWORD) as server:
        show(server)
        yield server


def ask(server: LiveServer, path: str, method: str = "GET", body: str | None = None, **headers: str) -> http.client.HTTPResponse:
    if server.tls:
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=WAIT, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse()


def basic(password: str, user: str = "any") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def login(server: LiveServer, password: str, **headers: str) -> http.client.HTTPResponse:
    return ask(server, "/login", "POST", f"password={password}", **headers)


PATHS = ["/", "/state", "/stream", "/video", "/image.jpg", "/event/0", "/none"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers", [{}, basic("wrong"), basic(""), {"Authorization": "Basic §"}, {"Authorization": "Bearer x"}, {"Cookie": "a=b;;"}]
)
def test_nothing_without_the_password(server, path, headers):
    response = ask(server, path, **headers)
    assert (response.status, response.read()) == (401, b"Unauthorized\n")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="Face masks", charset="UTF-8"'


@pytest.mark.parametrize("path", ["/state", "/image.jpg"])
def test_basic_password_as_of_a_video_player(server, path):
    assert ask(server, path, **basic(PASSWORD)).status == 200
    assert ask(server, path, **basic(PASSWORD, user="")).status == 200


def test_form_and_cookie(server):
    page = ask(server, "/", **BROWSER)
    assert page.status == 401 and "WWW-Authenticate" not in page.headers  # a form instead of the browser's dialogue
    assert 'type="password"' in page.read().decode()
    wrong = login(server, "wrong", **BROWSER)
    assert (wrong.status, wrong.headers["Set-Cookie"]) == (401, None)
    assert "wrong password" in wrong.read().decode()
    right = login(server, "m%C3%A4sk%3Aen+1", **BROWSER)
    assert (right.status, right.headers["Location"]) == (303, "/")
    cookie, *attributes = right.headers["Set-Cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert cookie.startswith(f"facemask_{server.port}=")
    assert [ask(server, path, Cookie=f"other=1; {cookie}").status for path in ("/", "/state")] == [200, 200]
    assert ask(server, "/state", Cookie=cookie + "x").status == 401


def test_the_page_itself_gets_no_dialogue(server):
    response = ask(server, "/stream", X_Page="1")
    assert response.status == 401 and "WWW-Authenticate" not in response.headers


def test_cookie_of_another_run(server):
    with LiveServer("127.0.0.1", 0, PASSWORD) as other:
        cookie = login(other, "m%C3%A4sk%3Aen+1").headers["Set-Cookie"].split(";")[0].partition("=")[2]
    assert ask(server, "/state", Cookie=f"facemask_{server.port}={cookie}").status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Origin": "https://evil.example"}, 403, id="of another site"),
        pytest.param({"Origin": "http://127.0.0.1:9"}, 403, id="of another port"),
        pytest.param({"Host": "evil.example"}, 403, id="by another name"),
        pytest.param({"Origin": "http://localhost", "Host": "localhost"}, 303, id="of the page"),
        pytest.param({"Content_Length": "5000"}, 400, id="long"),
        pytest.param({"Content_Length": "-1"}, 400, id="below nothing"),
    ],
)
def test_forms_from_elsewhere(server, headers, status):
    assert login(server, "m%C3%A4sk%3Aen+1", **headers).status == status


def test_no_login_where_there_is_no_password():
    with LiveServer("127.0.0.1", 0) as server:
        assert login(server, "").status == 404


@pytest.mark.parametrize("way", ["form", "basic"])
def test_tries_are_limited(server, monkeypatch, way):
    cookie = login(server, "m%C3%A4sk%3Aen+1").headers["Set-Cookie"].split(";")[0]

    def attempt(password: str) -> http.client.HTTPResponse:
        return login(server, password) if way == "form" else ask(server, "/state", **basic(password))

    assert [attempt("wrong").status for _ in range(page_access.TRIES)] == [401] * page_access.TRIES
    refused = attempt(PASSWORD if way == "basic" else "m%C3%A4sk%3Aen+1")  # the right one is not checked either
    assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
    assert ask(server, "/state", Cookie=cookie).status == 200  # who is in stays in
    monkeypatch.setattr(page_access, "TRIES_PERIOD", 0.0)
    assert attempt(PASSWORD if way == "basic" else "m%C3%A4sk%3Aen+1").status in (200, 303)


def test_tries_are_limited_for_each_address_and_for_all():
    access = Access("right")
    for number in range(page_access.TRIES_OF_ALL // page_access.TRIES):
        address = f"10.0.0.{number}"
        assert [access.check("wrong", address) for _ in range(page_access.TRIES + 1)] == [False] * page_access.TRIES + [None]
        assert access.check("right", "10.0.1.1") is (True if number < page_access.TRIES_OF_ALL // page_access.TRIES - 1 else None)


def test_passwords_that_are_made_differ():
    passwords = {make_password() for _ in range(100)}
    assert len(passwords) == 100 and all(re.fullmatch(r"[\w-]{16}", password) for password in passwords)


@pytest.fixture
def messages(caplog) -> list[str]:
    caplog.set_level(logging.INFO)
    return caplog.messages


@pytest.mark.parametrize(
    ("host", "password", "variable", "expected"),
    [
        pytest.param("127.0.0.1", None, None, None, id="this machine"),
        pytest.param("127.0.0.1", "given", None, "given", id="this machine, with a password"),
        pytest.param("127.0.0.1", None, "variable", "variable", id="this machine, from the environment"),
        pytest.param("0.0.0.0", "given", "variable", "given", id="others"),
        pytest.param("0.0.0.0", None, "variable", "variable", id="others, from the environment"),
        pytest.param("0.0.0.0", None, None, "made", id="others, none given"),
        pytest.param("0.0.0.0", None, "", "made", id="others, an empty variable"),
    ],
)
def test_password_of_the_page(caplog, monkeypatch, host, password, variable, expected):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(serving, "make_password", lambda: "made")
    monkeypatch.delenv("FACEMASK_PASSWORD", raising=False)
    if variable is not None:
        monkeypatch.setenv("FACEMASK_PASSWORD", variable)
    with open_page(LiveServer, (host, 0), password, None, None) as server:
        statuses = [ask(server, "/state", **headers).status for headers in ({}, basic(expected or ""))]
        assert statuses == ([200, 200] if expected is None else [401, 200])
        assert caplog.messages[0] == f"watch at {server.url}{' with the password made' if expected == 'made' else ''}"
    warning = "whoever is on the network between can read the password and the images; --tls-cert encrypts"
    assert caplog.messages[1:] == ([] if host == "127.0.0.1" else [warning])


@pytest.mark.parametrize("together", [False, True], ids=["two files", "one file"])
def test_encryption(tmp_path, caplog, together):
    caplog.set_level(logging.INFO)
    both = tmp_path / "both.pem"
    both.write_bytes(CERTIFICATE.read_bytes() + KEY.read_bytes())
    files = (both, None) if together else (CERTIFICATE, KEY)
    with open_page(LiveServer, ("0.0.0.0", 0), "given", *files) as server:
        assert caplog.messages == [f"watch at {server.url}"] and server.url.startswith("https://")
        assert ask(server, "/state", **basic("given")).status == 200
        assert "Secure" in login(server, "given").headers["Set-Cookie"].split("; ")
        plain = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
        plain.request("GET", "/state")
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            plain.getresponse()
        assert ask(server, "/state", **basic("given")).status == 200  # the others are still served


def test_encryption_waits_for_no_client(tmp_path):
    """A client that says nothing delays no other one."""
    import socket

    with LiveServer("127.0.0.1", 0, None, tls_context(CERTIFICATE, KEY)) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        assert ask(server, "/state").status == 200
        for client in silent:
            client.close()


def encrypted_key(folder: Path) -> Path:
    subprocess.run(
        ["openssl", "pkey", "-in", KEY, "-aes256", "-passout", "pass:secret", "-out", folder / "encrypted.pem"], check=True
    )
    return folder / "encrypted.pem"


def other_key(folder: Path) -> Path:
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", folder / "other.pem"],
        check=True,
        capture_output=True,
    )
    return folder / "other.pem"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda folder: (Path("none.pem"), KEY), "--tls-cert none.pem: cannot be read (No such file or directory); check the name and your rights", id="no certificate"),
        pytest.param(lambda folder: (CERTIFICATE, Path("none.pem")), "--tls-key none.pem: cannot be read (No such file or directory); check the name and your rights", id="no key"),
        pytest.param(lambda folder: (KEY, CERTIFICATE), f"--tls-cert: {KEY} and {CERTIFICATE}: not a certificate and its key in PEM format; give --tls-cert CERT.pem --tls-key KEY.pem", id="exchanged"),
        pytest.param(lambda folder: (CERTIFICATE, None), f"--tls-cert: {CERTIFICATE}: not a certificate in PEM format, its key in the same file; give --tls-cert CERT.pem --tls-key KEY.pem", id="no key in the file"),
        pytest.param(lambda folder: (CERTIFICATE, encrypted_key(folder)), "--tls-key {folder}/encrypted.pem: is encrypted; write it without: openssl pkey -in OLD.pem -out NEW.pem", id="encrypted key"),
        pytest.param(lambda folder: (CERTIFICATE, other_key(folder)), f"--tls-key {{folder}}/other.pem: is not the key of {CERTIFICATE}; give the two that belong together", id="other key"),
    ],
)  # fmt: skip
def test_certificates_that_cannot_be_used(tmp_path, make, message):
    with pytest.raises(InputError) as error:
        tls_context(*make(tmp_path))
    assert str(error.value) == message.format(folder=tmp_path)


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_password_in_a_browser(tmp_path, tls):
    context = tls_context(CERTIFICATE, KEY) if tls else None
    with LiveServer("127.0.0.1", 0, PASSWORD, context) as server, Browser(tmp_path / "profile", 700, 500) as browser:
        show(server)
        browser.open(server.url)
        browser.wait_for("document.querySelector('input[type=password]')?.name === 'password'")

        def enter(password: str) -> None:
            browser.run(f"document.querySelector('input').value = '{password}'; document.querySelector('button').click()")

        enter("wrong")
        browser.wait_for("document.querySelector('p')?.textContent === 'wrong password'")
        enter(PASSWORD)
        browser.wait_for("typeof tiles !== 'undefined' && tiles.length === 1 && tiles[0].part")
        assert browser.run("document.title") == "Face masks" and browser.run("document.cookie") == ""
        browser.open(server.url)  # still let in
        browser.wait_for("typeof tiles !== 'undefined' && tiles.length === 1 && tiles[0].part")
