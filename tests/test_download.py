import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.helpers import ROOT

spec = importlib.util.spec_from_file_location("download", ROOT / "dataset" / "download.py")
download = importlib.util.module_from_spec(spec)
spec.loader.exec_module(download)

PHOTOS = {"dataset/with_mask/a b.jpg": b"photo a", "dataset/without_mask/c.png": b"photo c", "dataset/with_mask/notes.txt": b"no"}


@pytest.fixture
def server(monkeypatch):
    """GitHub, as far as the script asks it, on this machine; `asked` lists the paths asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            body = self.server.answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        source = download.SOURCES["real"]
        tree = [{"path": path, "sha": download.git_hash(data)} for path, data in PHOTOS.items()]
        server.asked = []
        server.answers = {f"/api/{source.repository}/git/trees/{source.commit}?recursive=1": json.dumps({"tree": tree}).encode()}
        for path, data in PHOTOS.items():
            server.answers[f"/raw/{source.repository}/{source.commit}/{path.replace(' ', '%20')}"] = data
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(download, "API", f"{address}/api")
        monkeypatch.setattr(download, "RAW", f"{address}/raw")
        yield server
        server.shutdown()


def photos_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_git_hash_is_gits():
    assert (
        download.git_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    )  # printf 'hello\n' | git hash-object --stdin


def test_download_fetches_the_photos_once(server, tmp_path, capsys):
    assert download.main(["-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"2 photos in {tmp_path}\n"
    assert photos_in(tmp_path) == {"with_mask/a b.jpg": b"photo a", "without_mask/c.png": b"photo c"}
    (tmp_path / "with_mask" / "a b.jpg").write_bytes(b"spoilt")
    server.asked.clear()
    assert download.main(["-o", str(tmp_path)]) == 0
    assert [path.rsplit("/", 1)[1] for path in server.asked[1:]] == ["a%20b.jpg"]
    assert photos_in(tmp_path)["with_mask/a b.jpg"] == b"photo a"


def test_download_refuses_other_bytes_and_keeps_the_rest(server, tmp_path, capsys):
    path = next(path for path in server.answers if path.endswith("c.png"))
    server.answers[path] = b"something else"
    assert download.main(["-o", str(tmp_path)]) == 1
    assert "error: 1 of 2 photos: not downloaded; run the same command again to fetch the rest" in capsys.readouterr().err
    assert photos_in(tmp_path) == {"with_mask/a b.jpg": b"photo a"}


def test_download_through_a_login_page(server, tmp_path, capsys):
    server.answers = {path: b"<html>log in" for path in server.answers}
    assert download.main(["-o", str(tmp_path)]) == 1
    assert "the response is not from GitHub; check the connection" in capsys.readouterr().err


def test_download_without_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "API", "http://127.0.0.1:9")
    assert download.main(["-o", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: http://127.0.0.1:9/") and "cannot be downloaded" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
