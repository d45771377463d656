"""Archives when something fails: killed processes and machines, object stores that do not answer, signals."""

import logging
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [archive]: pip install -r requirements-archive.txt")
pytest.importorskip("ray", reason="needs the extra [archive]: pip install -r requirements-archive.txt")

import pyarrow as pa
from pyarrow import parquet as pq

import detect_mask_archive
from benchmarks import archive as benchmark
from facemask.archive import job, parts, sources, stores
from facemask.cli import options
from facemask.errors import InputError
from tests.archive.runs import find, make_output, process, records
from tests.helpers import EXAMPLES, ROOT

pytestmark = pytest.mark.archive
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}  # of Ray


@pytest.fixture(scope="module")
def detector():
    args = detect_mask_archive.build_parser().parse_args(["-i", "x", "-o", "y"])
    return options.load_detector(args, 1)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "in"
    folder.mkdir()
    for number in range(48):
        (folder / f"{number:02d}.jpg").symlink_to(EXAMPLES / ("people.jpg" if number % 2 else "obama.jpg"))
    return folder


def wait_for_parts(output: Path, count: int = 1) -> None:
    deadline = time.monotonic() + 300
    while len(list(output.rglob("*-?????.parquet"))) < count:
        assert time.monotonic() < deadline, "no part is written"
        time.sleep(0.02)


# Killed processes


@pytest.fixture(scope="module")
def nodes():
    nodes = benchmark.TwoNodes(**QUICK)
    yield nodes
    nodes.close()


@pytest.fixture(scope="module")
def undisturbed(images, nodes):
    output = images.with_name("undisturbed")
    log = images.with_name("log.txt")
    command = benchmark.archive_command(images, output, "--batch-size", "2", "--address", nodes.address)
    benchmark.finish(benchmark.start(command, log), log)
    return benchmark.results(output)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["worker", "node", "driver"])
def test_killed_run_equals_an_undisturbed_one(images, nodes, undisturbed, tmp_path, kind):
    output, log = tmp_path / "out", tmp_path / "log.txt"
    command = benchmark.archive_command(images, output, "--batch-size", "2")
    text = benchmark.one_kill(kind, nodes, command, log, lambda: wait_for_parts(output, 2))
    assert text and ("continued" in text) == (kind == "driver"), text
    assert benchmark.results(output) == undisturbed and len(undisturbed[0]) == 48
    assert "\n    " not in log.read_text()  # Ray's own reports have many lines


# Signals


def start_archive(images: Path, output: Path) -> subprocess.Popen:
    command = benchmark.archive_command(images, output, "--batch-size", "2", "--actors", "1")
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> set[int]:
    return {each.pid for each in benchmark.family(pid)} - {pid}


def alive(pids: set[int]) -> list[str]:
    """Return which of these processes are there after a while, at most two minutes: Ray's end with their parents."""
    deadline = time.monotonic() + 120
    while left := [each.command for pid, each in benchmark.processes().items() if pid in pids]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return left


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_and_all_its_processes(images, tmp_path, number, code):
    output = tmp_path / "out"
    run = start_archive(images, output)
    wait_for_parts(output)
    pids = children(run.pid)
    run.send_signal(number)
    stdout, stderr = run.communicate(timeout=120)
    assert (run.returncode, stdout, stderr.splitlines()[-1]) == (code, "", "[INFO] stopped")
    assert len(pids) >= 3 and alive(pids) == []
    names = [path.name for path in output.rglob("*")]
    assert not any(name.endswith(".partial") or name == "summary.json" for name in names)


@linux
@pytest.mark.slow
def test_no_process_remains_after_a_failed_run(images, tmp_path):
    output = tmp_path / "out"
    run = start_archive(images, output)
    wait_for_parts(output)
    pids = children(run.pid)
    shutil.rmtree(output / "faces")
    (output / "faces").write_text("no folder")
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 1 and stderr.splitlines()[-1].startswith(f"error: {output}/faces")
    assert len(pids) >= 3 and alive(pids) == []


# The cluster


def test_address_at_which_nothing_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError) as error, job.cluster(address, None):
            pass
    assert str(error.value) == f"{address}: cannot be reached (Connection refused); check --address"


def test_head_that_ends_is_reported(monkeypatch, caplog):
    monkeypatch.setattr(job, "CHECK", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with job.watched(address):
            time.sleep(0.2)
            assert caplog.messages == []
            server.close()
            deadline = time.monotonic() + 30
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)
    assert caplog.messages == [
        f"Ray at {address}: cannot be reached (Connection refused); if that lasts, this run ends, "
        "and the same command with --resume continues"
    ]


def test_reports_of_ray_become_one_line_each(caplog):
    messages = job.RayMessages()
    for _ in range(2):
        print("\x1b[33m(raylet)\x1b[0m A worker died. To troubleshoot it:\n    [state-dump] 1\n", file=messages)
    assert caplog.messages == ["(raylet) A worker died"]


# Object stores


class Faulty:
    """An S3 server: moto's, with faults. `fault` gets the WSGI environment, and returns a status, or None for no fault."""

    def __init__(self, app):
        self.app, self.requests, self.fault = app, 0, lambda environment: None

    def __call__(self, environment, start_response):
        self.requests += 1
        status = self.fault(environment)
        if status is None:
            return self.app(environment, start_response)
        start_response(status, [("Content-Length", "0")])
        return []


@pytest.fixture
def store(monkeypatch):
    """A faulty S3 server, and the address of a bucket in it, with %s for the path."""
    server_module = pytest.importorskip("moto.server", reason="needs moto[server]")
    from werkzeug.serving import make_server

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    faulty = Faulty(server_module.DomainDispatcherApplication(server_module.create_backend_app))
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    uri = f"s3://photos/%s?scheme=http&endpoint_override=127.0.0.1:{server.port}&region=us-east-1&allow_bucket_creation=true"
    stores.Store.of(uri % "")[0].files.create_dir("photos")
    yield faulty, uri
    faulty.fault = lambda environment: None
    urllib.request.urlopen(f"http://127.0.0.1:{server.port}/moto-api/reset", data=b"").close()
    server.shutdown()
    thread.join()
    server.server_close()
    stores._open_store.cache_clear()


def upload(uri: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        place, path = stores.Store.of(uri % name)
        place.write(path, data)


def test_object_takes_two_requests(store):
    faulty, uri = store
    upload(uri, {"a/0.jpg": (EXAMPLES / "obama.jpg").read_bytes()})
    before = faulty.requests
    (item,) = sources.Files((uri % "a/0.jpg",)).read()
    assert faulty.requests - before == 2
    assert item.data == (EXAMPLES / "obama.jpg").read_bytes() and abs(item.modified - time.time()) < 3600


def test_missing_object_is_a_row_of_a_kind(store, detector, tmp_path):
    _, uri = store
    (tmp_path / "list.txt").write_text("".join(f"{uri % name}\n" for name in ("a.jpg", "b.jpg")))
    counts = process(detector, make_output(tmp_path), find(tmp_path / "list.txt"))
    assert counts.errors == {"cannot be read (No such file or directory)": 2}


@pytest.mark.slow
def test_store_that_is_slow(store):
    faulty, uri = store
    upload(uri, {"a.jpg": b"content"})
    faulty.fault = lambda environment: time.sleep(4)  # longer than pyarrow's own limit
    place, path = stores.Store.of(uri % "a.jpg")
    before = faulty.requests
    assert place.read(path) == b"content" and faulty.requests - before == 2


@pytest.mark.slow
def test_store_that_fails_for_a_while(store, detector, monkeypatch, tmp_path, caplog):
    """It fails for longer than pyarrow tries."""
    faulty, uri = store
    photo = (EXAMPLES / "obama.jpg").read_bytes()
    upload(uri, {f"in/{number}.jpg": photo for number in range(6)})
    found = find(uri % "in")
    output = parts.Output(uri % "out", "parquet")
    until = time.monotonic() + 9
    faulty.fault = lambda environment: "503 Slow Down" if time.monotonic() < until else None
    counts = process(detector, output, found)
    assert time.monotonic() > until and counts.totals == Counter(images=6, faces=6)
    assert "the object store does not answer (AWS Error UNKNOWN (HTTP status 503)" in caplog.text


@pytest.mark.slow
def test_store_that_ends_gives_no_rows_and_the_run_continues(store, detector, monkeypatch):
    faulty, uri = store
    photo = (EXAMPLES / "obama.jpg").read_bytes()
    upload(uri, {f"in/{number}.jpg": photo for number in range(6)})
    found, output = find(uri % "in"), parts.Output(uri % "out", "parquet")
    process(detector, output, found, units=1)
    with monkeypatch.context() as patch:
        patch.setattr(stores, "PATIENCE", 0.0)
        faulty.fault = lambda environment: "500 Internal Server Error" if "/in/" in environment["PATH_INFO"] else None
        counts = process(detector, parts.Output(uri % "other", "parquet"), found, units=1)
        assert counts.totals["failed"] == 2  # the store answers: it is the images
        faulty.fault = lambda environment: "500 Internal Server Error" if "/out/" not in environment["PATH_INFO"] else None
        with pytest.raises(stores.StoreError, match="the object store does not answer"):
            process(detector, output, found, resume=True)
    faulty.fault = lambda environment: None
    assert len(records(output)) == 2
    assert process(detector, output, found, resume=True).totals == Counter(images=6, faces=6)


class Interrupted(sources.TarShard):
    """A tar shard whose store stops to answer after each image."""

    def _read(self):
        for number, item in enumerate(super()._read()):
            yield item
            if number == self.reads[0]:
                self.reads[0] += 1
                raise stores.StoreError("a.tar: the object store does not answer; wait")

    reads = [0]  # noqa: RUF012


def test_shard_whose_store_fails_is_read_on(images, tmp_path, monkeypatch):
    monkeypatch.setattr(stores.time, "sleep", lambda seconds: None)
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as tar:
        for number in range(3):
            tar.add(EXAMPLES / "obama.jpg", f"{number}.jpg")
    names = [item.name for item in Interrupted(str(shard)).read()]
    assert names == [f"{shard}/{number}.jpg" for number in range(3)] and Interrupted.reads == [3]


@pytest.mark.slow
def test_shards_of_a_store_that_fails_for_a_while_are_listed(store, tmp_path):
    faulty, uri = store
    photo = (EXAMPLES / "obama.jpg").read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(EXAMPLES / "obama.jpg", "0.jpg")
    pq.write_table(pa.table({"image": [photo] * 2}), tmp_path / "a.parquet")
    upload(uri, {name: (tmp_path / name).read_bytes() for name in ("a.tar", "a.parquet")})
    for name, names in (("a.tar", ["a.tar/0.jpg"]), ("a.parquet", ["a.parquet#0", "a.parquet#1"])):
        until = time.monotonic() + 9
        faulty.fault = lambda environment, until=until: "503 Slow Down" if time.monotonic() < until else None
        (shard,) = find(uri % name).shards
        assert shard.names() == [f"s3://photos/{each}" for each in names] and time.monotonic() > until


def test_patience_ends(monkeypatch):
    pauses, now = [], [0.0]
    monkeypatch.setattr(stores.time, "monotonic", lambda: now[0])

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(stores.time, "sleep", sleep)

    @stores.patient
    def fail():
        raise stores.StoreError("s3://a/b: the object store does not answer; wait")

    with pytest.raises(stores.StoreError):
        fail()
    assert stores.PATIENCE <= now[0] < stores.PATIENCE + stores.MAX_PAUSE
    assert max(pauses) <= stores.MAX_PAUSE and pauses[0] <= 1
