"""Images named by a URL, from a server on this machine."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import detect_mask_image
from facemask.errors import InputError
from facemask.io import downloads
from facemask.io.downloads import download, file_name, is_url, without_password
from tests.helpers import EXAMPLES

JPEG = (EXAMPLES / "astronaut.jpg").read_bytes()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        if path in ("/moved.jpg", "/file.jpg"):
            self.send_response(302)
            self.send_header("Location", {"/moved.jpg": "/a.jpg", "/file.jpg": "file:///etc/hostname"}[path])
            self.end_headers()
            return
        if path == "/secret.jpg" and self.headers["Authorization"] != "Basic " + base64.b64encode(b"me:pass").decode():
            self.send_error(401)
            return
        if path == "/none.jpg":
            self.send_error(404)
            return
        self.send_response(200)
        if path == "/short.jpg":
            self.send_header("Content-Length", str(len(JPEG) + 5))
        self.end_headers()
        if path == "/slow.jpg":
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.02)
        self.wfile.write(b"<!doctype html><title>a.jpg</title>" if path == "/page.jpg" else JPEG)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # readers go

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/a.jpg", "/moved.jpg", "/a.jpg?size=3#top"])
def test_download(server, path):
    assert download(server + path) == JPEG


def test_download_with_a_password(server):
    assert download(f"{server.replace('//', '//me:pass@')}/secret.jpg") == JPEG


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("/none.jpg", "cannot be downloaded (Not Found); check the address, or download it another way, and give the file", id="missing"),
        pytest.param("/secret.jpg", "cannot be downloaded (Unauthorized); check the address, or download it another way, and give the file", id="password"),
        pytest.param("/short.jpg", "ended 5 bytes too early; try again, or download it another way, and give the file", id="cut off"),
        pytest.param("/a.jpg", "more than 0 MB; download it another way, and give the file", id="too large"),
        pytest.param("/slow.jpg", "takes more than 0 s; download it another way, and give the file", id="too slow"),
    ],
)  # fmt: skip
def test_download_fails(server, monkeypatch, path, message):
    if path == "/a.jpg":
        monkeypatch.setattr(downloads, "MAX_DOWNLOAD", 9999)
    if path == "/slow.jpg":
        monkeypatch.setattr(downloads, "MAX_SECONDS", 0.1)
    with pytest.raises(InputError) as error:
        download(server + path)
    assert str(error.value) == f"{server}{path}: {message}"


def test_download_follows_no_redirection_to_a_file(server):
    with pytest.raises(InputError, match="cannot be downloaded"):
        download(f"{server}/file.jpg")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("https://a/b.jpg", True), ("HTTP://a/b.jpg", True), ("a.jpg", False), ("C:\\a.jpg", False), ("http:/a.jpg", False)],
)
def test_is_url(source, expected):
    assert is_url(source) is expected


@pytest.mark.parametrize("source", ["ftp://me:pass@host/a.jpg", "file:///a.jpg", "rtsp://me:pass@host/a.jpg"])
def test_is_url_of_another_kind(source):
    with pytest.raises(InputError) as error:
        is_url(source)
    assert str(error.value) == (
        f"{without_password(source)}: only http and https images are downloaded; download it another way, and give the file"
    )
    assert "pass" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/x/a%20b.jpg?c=d/e", "a b.jpg"),
        ("http://h", "image"),
        ("http://h/x/", "image"),
        ("http://h/..%2Fa.jpg", "a.jpg"),
    ],
)
def test_file_name(url, name):
    assert file_name(url) == name


def test_images_by_url(server, tmp_path, capsys):
    """Records and messages have the URL, without a password; annotated images have its file's name; failures are one line."""
    urls = [f"{server}/a.jpg?n=1", f"{server}/a.jpg?n=2", f"{server.replace('//', '//me:pass@')}/secret.jpg"]
    bad = [f"{server}/none.jpg", f"{server}/page.jpg"]
    outputs = ["-o", str(tmp_path / "out"), "--jsonl", str(tmp_path / "o.jsonl")]
    assert detect_mask_image.main(["-i", *urls, "-i", *bad, *outputs]) == 1
    out, err = capsys.readouterr()
    names = [*urls[:2], f"{server}/secret.jpg"]
    assert [line.partition(": ")[0] for line in out.splitlines()] == names
    assert [json.loads(line)["image"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "a_2.jpg", "secret.jpg"]
    assert [line for line in err.splitlines() if line.startswith("[WARN]")] == [
        f"[WARN] {bad[0]}: cannot be downloaded (Not Found); check the address, or download it another way, and give the file",
        f"[WARN] {bad[1]}: HTML files are not read; give the address or file of the image itself",
    ]
    assert "pass@" not in out + err
    assert detect_mask_image.main(["-i", *urls, *outputs, "--resume"]) == 0
    assert "3 of 3 images were done before" in capsys.readouterr().err
