"""The table "Missing packages" of docs/errors.md, row by row, each in a process in which the package cannot be imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.fault_table import ASTRONAUT, MODEL, FaultTable, Run, needs_linux, on_keras, slow, write
from tests.helpers import ROOT

pytestmark = needs_linux
TABLE = FaultTable("Missing packages")
RUN = """
import importlib, sys
from types import SimpleNamespace
sys.modules[{package!r}] = None
from facemask.cli import run
explain = run.explain_import
def explain_on(error):
    run.sys = SimpleNamespace(version_info={python})
    try:
        return explain(error)
    finally:
        run.sys = sys
run.explain_import = explain_on
sys.exit(importlib.import_module({script!r}).main({arguments}))
"""


def without(package: str, script: str, *arguments: str, python: tuple[int, int] = (3, 13)) -> Run:
    """Run a script where `package` is not installed, and where Python is of that version for the message."""

    def main(_: list[str]) -> int:
        code = RUN.format(package=package, script=script, arguments=list(arguments), python=python)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
        sys.stderr.write(done.stderr)
        return done.returncode

    return Run([], script=main)


def training(package: str, python: tuple[int, int] = (3, 13)) -> Run:
    for label in ("with_mask", "without_mask"):
        write(f"data/{label}/a.jpg", ASTRONAUT.read_bytes())
    return without(package, "train_mask_detector", "-d", "data", "-m", "m.keras", "--weights", str(MODEL), python=python)


def export(form: str, package: str, python: tuple[int, int] = (3, 13)) -> Run:
    return without(package, "facemask.__main__", "export", "--format", form, "-o", "out", python=python)


@TABLE.case("training without Keras")
@slow
@on_keras
def no_keras(folder):
    return training("keras")


@TABLE.case("training without TensorFlow")
@slow
@on_keras
def no_tensorflow(folder):
    return training("tensorflow")


@TABLE.case("training, or export to LiteRT, without TensorFlow on Python 3.14")
@slow
@on_keras
def newest_python(folder):
    return [training("tensorflow", (3, 14)), export("litert", "tensorflow", (3, 14))]


@TABLE.case("export to OpenVINO without it")
@slow
@on_keras
def no_openvino(folder):
    return export("openvino", "openvino")


@TABLE.case("an archive without Ray")
def no_ray(folder):
    return without("ray", "detect_mask_archive", "-i", str(ASTRONAUT), "-o", "out")


def test_every_row_has_its_case():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
    assert not Path("out").exists() and not Path("m.keras").exists()
