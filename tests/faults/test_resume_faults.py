"""The table "Signals and --resume" of docs/errors.md, row by row."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import detect_mask_image
from tests.faults.fault_table import ASTRONAUT, FaultTable, Run, copy_image, needs_linux, write
from tests.helpers import ROOT

pytestmark = needs_linux
TABLE = FaultTable("Signals and --resume")


def interrupted(number: int, folder: Path) -> Run:
    """Send a signal to a run over a folder when it has reported some images; then resume it, and compare."""
    Path("all").mkdir()
    for index in range(60):
        os.link(copy_image("a.jpg"), f"all/{index:02d}.jpg")

    def script(_: list[str]) -> int:
        command = [sys.executable, str(ROOT / "detect_mask_image.py"), "-i", "all", "--jsonl", "o.jsonl", "--csv", "o.csv"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            partial, patience = Path("o.partial.jsonl"), time.monotonic() + 60
            while not (partial.exists() and partial.stat().st_size) and time.monotonic() < patience:
                time.sleep(0.002)
            process.send_signal(number)
            sys.stderr.write(process.communicate(timeout=60)[1])
        return 128 - process.returncode if process.returncode < 0 else process.returncode

    def check() -> None:
        assert not Path("o.jsonl").exists() and not Path("o.csv").exists()
        assert 0 < len(Path("o.partial.jsonl").read_bytes().splitlines()) < 60
        assert detect_mask_image.main(["-i", "all", "--jsonl", "o.jsonl", "--csv", "o.csv", "--resume"]) == 0
        assert detect_mask_image.main(["-i", "all", "--jsonl", "whole.jsonl", "--csv", "whole.csv"]) == 0
        for suffix in ("jsonl", "csv"):
            assert Path(f"o.{suffix}").read_bytes() == Path(f"whole.{suffix}").read_bytes()
        assert not list(folder.glob("*.partial*"))

    return Run([], script=script, after=check)


@TABLE.case("Ctrl-C: --resume continues")
def control_c(folder):
    return interrupted(signal.SIGINT, folder)


@TABLE.case("SIGTERM: --resume continues (the same for a terminal that closes, 129)")
def terminated(folder):
    return interrupted(signal.SIGTERM, folder)


@TABLE.case("kill -9, also in the middle of a line: --resume continues")
def killed(folder):
    return interrupted(signal.SIGKILL, folder)


@TABLE.case("on Windows, --resume of a file that another program has open")
def resume_open_elsewhere(folder, monkeypatch):
    """Windows is faked: there the file cannot be opened."""
    write("o.partial.jsonl", b'{"image": "a.jpg", "faces": []}\n')

    def refuse(path, *_):
        error = PermissionError(13, "Sharing violation", str(path))
        error.winerror = 32
        raise error

    monkeypatch.setattr("facemask.io.json_lines.open", refuse, raising=False)
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl", "--resume"])


@TABLE.case("--resume without --jsonl")
def resume_without_jsonl(folder):
    return Run(["-i", str(ASTRONAUT), "--resume"])


@TABLE.case("--resume of a file that another program wrote")
def resume_other(folder):
    write("o.jsonl", b'{"frame": 0}\n')
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl", "--resume"], after=lambda: check_resumed('{"frame": 0}\n'))


@TABLE.case("--resume of a file with a corrupt line")
def resume_broken(folder):
    text = '{"image": "a", "faces": []}\n{"image"\n{"image": "b", "faces": []}\n'
    write("o.jsonl", text.encode())
    return Run(["-i", str(ASTRONAUT), "--jsonl", "o.jsonl", "--resume"], after=lambda: check_resumed(text))


def check_resumed(text: str) -> None:
    assert Path("o.jsonl").read_text() == text


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
