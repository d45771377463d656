"""The tables of docs/errors.md: each row is a test, word for word."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import detect_mask_image
from tests.helpers import EXAMPLES, ROOT

ASTRONAUT = EXAMPLES / "astronaut.jpg"
MODEL = ROOT / "mask_detector.keras"
ONNX = ROOT / "mask_detector.onnx"
KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}
PAGE = ROOT / "docs" / "errors.md"
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="FIFOs, limits and signals as Linux has them")


@dataclass(frozen=True)
class Row:
    """A row of a table: what is given, the exit code, and the lines on stderr except [INFO]."""

    what: str
    code: int
    lines: list[str]


@dataclass(frozen=True)
class Run:
    """A command to run. Each image in `bad` must get the row's line as a warning, and the others must be done."""

    arguments: list[str]
    script: Callable[[list[str]], int] = detect_mask_image.main
    bad: list[str] = field(default_factory=list)
    after: Callable[[], None] = lambda: None  # further checks


def read_tables() -> dict[str, list[Row]]:
    """Return the rows of each table of the page, by its heading."""
    tables: dict[str, list[Row]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| "):
            what, code, messages = (cell.strip() for cell in line[1:-1].split("|"))
            if code.isdecimal():
                tables.setdefault(heading, []).append(Row(what, int(code), re.findall("`([^`]+)`", messages)))
    return tables


class FaultTable:
    """One table of the page and the cases that test it."""

    def __init__(self, heading: str) -> None:
        self.heading = heading
        self.rows = read_tables()[heading]
        self.cases: dict[str, Callable] = {}

    def case(self, what: str) -> Callable:
        """Register the test of a row: a function that makes files in the working folder and returns a `Run` or several."""

        def register(function: Callable) -> Callable:
            assert what not in self.cases
            self.cases[what] = function
            return function

        return register

    def parameters(self) -> list:
        return [pytest.param(row, id=row.what, marks=getattr(self.cases.get(row.what), "marks", [])) for row in self.rows]

    def check_complete(self) -> None:
        """Fail unless each row has its case and each case its row, in the same order."""
        assert [row.what for row in self.rows] == list(self.cases)

    def check_row(self, row: Row, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run a row's case in `folder`, and compare the exit code and the lines on stderr."""
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["detect_mask_image.py"])  # argparse's messages begin with it
        with running(self.cases[row.what], folder, monkeypatch) as runs:
            for run in runs:
                capsys.readouterr()
                try:
                    code = run.script(run.arguments)
                except SystemExit as error:
                    code = error.code
                messages = [line for line in capsys.readouterr().err.splitlines() if is_message(line)]
                expected = row.lines
                if run.bad:
                    (line,) = row.lines
                    expected = [line.replace("error: a.jpg:", f"[WARN] {name}:") for name in run.bad]
                assert (code, messages) == (1 if run.bad else row.code, expected)
                run.after()


def is_message(line: str) -> bool:
    """Return whether a line of stderr is a warning or an error: no [INFO], and no part of a progress bar."""
    other = line.startswith(("[INFO]", "usage:", " ")) or "%|" in line or "/step" in line
    return bool(line) and line.isprintable() and not other  # Keras' bars go back over themselves


@contextmanager
def running(function: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    made = function(folder, monkeypatch) if function.__code__.co_argcount == 2 else function(folder)
    try:
        yield made if isinstance(made, list) else [made]
    finally:
        if os.geteuid() != 0 and os.getuid() == 0:
            os.seteuid(0)


def drop_rights() -> None:
    """Become a user whom file permissions bind, until the test ends: root may do everything."""
    if os.geteuid() == 0:
        for folder in (Path.cwd(), *Path.cwd().parents):
            if folder.stat().st_mode & 0o055 == 0:  # pytest's are closed to others
                folder.chmod(0o755)
        os.seteuid(65534)


def copy_image(name: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ASTRONAUT, name)
    return name


def load_astronaut() -> Image.Image:
    with Image.open(ASTRONAUT) as image:
        return image.copy()


def encoded(kind: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = BytesIO()
    (image or load_astronaut()).save(buffer, kind, **options)
    return buffer.getvalue()


def write(name: str, data: bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)
    return name


def warm_up() -> None:
    """Import what a run needs before `drop_rights` takes the right to read it."""
    assert detect_mask_image.main(["-i", str(ASTRONAUT)]) == 0


def check_faces(count: int, faces: int = 1) -> None:
    records = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert [len(record["faces"]) for record in records] == [faces] * count


def on_keras(function: Callable) -> Callable:
    """Mark a case as one that needs Keras."""
    function.marks = [*getattr(function, "marks", []), pytest.mark.training]
    return function


def slow(function: Callable) -> Callable:
    """Mark a case as one that `make test` leaves out."""
    function.marks = [*getattr(function, "marks", []), pytest.mark.slow]
    return function


def assert_absent(name: str) -> None:
    assert not Path(name).exists()
