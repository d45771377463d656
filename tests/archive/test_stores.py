"""Archives in object stores, against local servers of S3, Google Cloud Storage and Azure; each is skipped where it is absent."""

import json
import shutil
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [archive]: pip install -r requirements-archive.txt")

import detect_mask_archive
import detect_mask_image
from facemask.archive import parts, sources, tables
from facemask.archive.sources import Store
from facemask.cli import options
from facemask.errors import InputError
from facemask.io.images import write_image
from tests.archive.runs import process, records
from tests.helpers import EXAMPLES, numbered, write_video

pytestmark = pytest.mark.archive
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # of its manual


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def s3(monkeypatch):
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0)
    server.start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    host, port = server.get_host_and_port()
    query = f"?scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    Store.of(f"s3://photos/{query}")[0].files.create_dir("photos")
    yield "s3://photos", query
    server.stop()


@pytest.fixture
def gs():
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
    port = free_port()
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="photos")
    server.start()
    yield "gs://anonymous@photos", f"?scheme=http&endpoint_override=localhost:{port}&retry_limit_seconds=5"
    server.stop()


@pytest.fixture
def az(tmp_path, monkeypatch):
    pytest.importorskip("adlfs", reason="needs adlfs")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs azurite-blob: npm install -g azurite")
    port = free_port()
    arguments = ["--silent", "--skipApiVersionCheck", "--location", str(tmp_path / "azurite"), "--blobPort", str(port)]
    server = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
    account = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};BlobEndpoint={endpoint};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
    Store.of("az://photos/")[0].files.create_dir("photos")
    yield "az://photos", ""
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def detector():
    args = detect_mask_archive.build_parser().parse_args(["-i", "x", "-o", "y", "--tiles", "auto", "--turns", "auto"])
    return options.load_detector(args, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")  # the servers'
@pytest.mark.parametrize("store_name", ["s3", "gs", "az"])
def test_archive_in_an_object_store(detector, tmp_path, request, store_name):
    base, query = request.getfixturevalue(store_name)
    name = base.replace("anonymous@", "")  # as records have it
    images = tmp_path / "in"
    images.mkdir()
    shutil.copy(EXAMPLES / "people.jpg", images / "0.jpg")
    write_image(images / "grey.png", np.full((80, 90, 3), 127, np.uint8))
    (images / "corrupt.jpg").write_bytes(b"no image")
    lines = tmp_path / "lines.jsonl"
    assert detect_mask_image.main(["-i", str(images), "--jsonl", str(lines), "--no-show"]) == 1
    store, root = Store.of(f"{base}/{query}")
    for path in [*images.iterdir(), write_video(tmp_path / "clip.mp4", [numbered(0)] * 3)]:
        store.write(f"{root}/{'clips' if path.suffix == '.mp4' else 'a'}/{path.name}", path.read_bytes())
    store.write(f"{root}/a/notes.md", b"no image")
    skipped: Counter = Counter()
    found = sources.find_sources([f"{base}/a{query}"], skipped)
    assert skipped.total() == 1 and sources.find_sources([f"{base}/a/*.png{query}"], skipped).count == 1
    output = parts.Output(f"{base}/out{query}", "parquet")
    process(detector, output, found, size=1, units=1)
    process(detector, output, found, resume=True)
    got = records(output)
    script = [json.dumps(record).replace(f"{name}/a/", f"{images}/") for record in got if "error" not in record]
    assert sorted(script) == sorted(lines.read_text().splitlines())
    assert [Path(record["image"]).name for record in got] == ["0.jpg", "corrupt.jpg", "grey.png"]

    clips = parts.Output(f"{base}/tracks{query}", "jsonl")
    process(detector, clips, sources.find_sources([f"{base}/clips{query}"], skipped))
    (clip,) = records(clips, tables.CLIPS)
    assert (clip["source"], clip["frames"]) == (f"{name}/clips/clip.mp4", 3)

    with pytest.raises(InputError, match="no such object, and nothing below it"):
        sources.find_sources([f"{base}/nothing{query}"], skipped)
