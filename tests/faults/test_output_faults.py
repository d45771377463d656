"""The table "Outputs" of docs/errors.md, row by row."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import detect_mask_image
from facemask.io.json_lines import resumable_json_lines
from tests.faults.fault_table import ASTRONAUT, FaultTable, Run, copy_image, drop_rights, encoded, needs_linux, warm_up, write
from tests.helpers import EXAMPLES, ROOT

pytestmark = needs_linux
TABLE = FaultTable("Outputs")


@TABLE.case("in a folder that does not exist: it is made, with its parents")
def no_folder(folder):
    def check() -> None:
        assert sorted(path.name for path in Path("new/one").iterdir()) == ["a.jpg", "o.csv", "o.jsonl"]

    arguments = ["-i", str(ASTRONAUT), "-o", "new/one/a.jpg", "--jsonl", "new/one/o.jsonl", "--csv", "new/one/o.csv"]
    return Run(arguments, after=check)


@TABLE.case("in a folder that is a file")
def file_as_folder(folder):
    return Run(["-i", copy_image("a.jpg"), "--jsonl", "a.jpg/o.jsonl"], after=lambda: check_input())


@TABLE.case("in a folder that may not be written to")
def read_only(folder):
    Path("closed").mkdir(mode=0o555)
    warm_up()
    drop_rights()
    return Run(["-i", str(ASTRONAUT), "--jsonl", "closed/o.jsonl"])


@TABLE.case("where there is a folder of that name")
def is_folder(folder):
    Path("o.jsonl").mkdir()
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl"])


@TABLE.case("a device")
def device(folder):
    return Run(["-i", str(ASTRONAUT), "--jsonl", "/dev/null"])


@TABLE.case("the input itself, also by another name, or another output")
def same_file(folder):
    copy_image("a.jpg")
    Path("link.jpg").symlink_to("a.jpg")
    return [
        Run(["-i", "a.jpg", "-o", "a.jpg"], after=lambda: check_input()),
        Run(["-i", "./link.jpg", "-o", "a.jpg"], after=lambda: check_input()),
        Run(["-i", str(ASTRONAUT), "--jsonl", "a.jpg", "--csv", "a.jpg"], after=lambda: check_input()),
    ]


def check_input() -> None:
    assert Path("a.jpg").read_bytes() == ASTRONAUT.read_bytes()


@TABLE.case("on Windows, a file that another program has open, as a spreadsheet has its CSV")
def open_elsewhere(folder, monkeypatch):
    """Windows is faked: there the file cannot be opened for writing."""
    write("o.csv", b"old")
    own = open

    def refuse(path, mode="r", *more, **options):
        if Path(path).name == "o.csv" and mode == "r+b":
            raise PermissionError(13, "Permission denied", "o.csv")
        return own(path, mode, *more, **options)

    monkeypatch.setattr("facemask.io.outputs.open", refuse, raising=False)
    monkeypatch.setattr("facemask.io.outputs.sys", SimpleNamespace(platform="win32"))
    return Run(["-i", str(ASTRONAUT), "--csv", "o.csv"], after=lambda: check_old())


@TABLE.case("the same, opened during the run: the new file is kept")
def opened_meanwhile(folder, monkeypatch):
    write("o.csv", b"old")

    def refuse(source, target):
        raise PermissionError(13, "Access is denied", str(source), None, str(target))

    monkeypatch.setattr("facemask.io.outputs.os.replace", refuse)
    return Run(["-i", str(ASTRONAUT), "--csv", "o.csv"], after=lambda: check_old(rows=2))


def check_old(rows: int = 0) -> None:
    assert Path("o.csv").read_bytes() == b"old"
    assert not rows or len(Path("o.partial.csv").read_text().splitlines()) == rows


@TABLE.case("where another run is writing")
def busy(folder):
    def script(arguments: list[str]) -> int:
        with resumable_json_lines("o.jsonl", resume=False):
            return detect_mask_image.main(arguments)

    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl"], script=script)


@TABLE.case("where the unfinished file would be a link: it is not followed")
def link_in_the_way(folder):
    write("precious", b"precious")
    Path("o.partial.jsonl").symlink_to("precious")
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl"], after=lambda: check_precious())


def check_precious() -> None:
    assert Path("precious").read_bytes() == b"precious"


@TABLE.case("an annotated image that its format cannot hold: its faces are recorded, the other images are processed")
def format_too_small(folder):
    write("all/a.webp", encoded("PNG", Image.new("RGB", (17_000, 10))))
    copy_image("all/b.jpg")

    def check() -> None:
        assert [path.name for path in Path("out").iterdir()] == ["b.jpg"]
        assert len(Path("o.jsonl").read_text().splitlines()) == 2

    return Run(["-i", "all", "-o", "out", "--jsonl", "o.jsonl"], after=check)


def in_process(arguments: list[str], **options) -> Callable[[list[str]], int]:
    """Return a script that runs as one of its own, and copies what it says."""

    def script(_: list[str]) -> int:
        command = [sys.executable, str(ROOT / "detect_mask_image.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, **options)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode

    return script


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def check_lines_are_whole(name: str) -> None:
    data = Path(name).read_bytes()
    assert data.endswith(b"\n") and all(json.loads(line) for line in data.splitlines())


@TABLE.case("on a disk that gets full: what was written stays whole, and --resume continues")
def full_disk(folder):
    for number in range(20):
        copy_image(f"all/{number:02d}.jpg")

    def check() -> None:
        check_lines_are_whole("o.partial.jsonl")
        assert not Path("o.jsonl").exists()

    script = in_process(["-i", "all", "--jsonl", "o.jsonl"], preexec_fn=limit_files)
    return Run([], script=script, after=check)


@TABLE.case("an annotated image on a full disk")
def full_disk_image(folder):
    script = in_process(["-i", copy_image("a.jpg"), "-o", "o.jpg"], preexec_fn=limit_files)
    return Run([], script=script, after=lambda: assert_names(folder, ["a.jpg"]))


def assert_names(folder: Path, names: list[str]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == names


@TABLE.case("`python -m web.build` without onnxruntime-web")
def page_without_runtime(folder, monkeypatch):
    from web import build

    monkeypatch.setattr(build, "RUNTIME", folder)
    return Run(["-o", "page"], script=build.main, after=lambda: assert_names(folder, []))


@TABLE.case("stdout that is closed, as by `head`")
def closed_stdout(folder):
    def script(_: list[str]) -> int:
        command = [sys.executable, str(ROOT / "detect_mask_image.py"), "-i", str(EXAMPLES)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.close()
            sys.stderr.write(process.stderr.read())
        return process.returncode

    return Run([], script=script)


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
