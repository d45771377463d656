"""What docs/platforms.md says of each platform: that its packages resolve with the lock, and what other files say of it."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from tests.helpers import ROOT

# The platforms of the first table of docs/platforms.md, as uv names them.
PLATFORMS = {
    "Linux, x86-64": "x86_64-manylinux_2_28",
    "Linux, ARM64": "aarch64-manylinux_2_28",
    "Windows, x86-64": "x86_64-pc-windows-msvc",
    "macOS, ARM64": "aarch64-apple-darwin",
    "macOS, Intel": "x86_64-apple-darwin",
    "Windows, ARM64": "aarch64-pc-windows-msvc",
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FILES = {"detection": "requirements-detect.txt", "training": "requirements.txt"}
UV = Path(sys.executable).parent / "uv"
UNREACHABLE = "error sending request|Failed to fetch|dns error|timed out"


def stated() -> dict[tuple[str, str], set[str]]:
    """Return the Pythons for which docs/platforms.md says that the packages resolve, by platform and use."""
    text = (ROOT / "docs/platforms.md").read_text(encoding="utf-8")
    found = {}
    for row in re.findall(r"^\| (.*) \|$", text.split("\n\n")[2], re.MULTILINE):
        platform, detection, training, *_ = row.split(" | ")
        if platform in PLATFORMS:
            for use, cell in (("detection", detection), ("training", training)):
                ends = re.findall(r"3\.\d+", cell)
                found[platform, use] = {each for each in PYTHONS if ends and ends[0] <= each <= ends[-1]}
    return found


def resolve(uv: str, platform: str, python: str, requirements: str) -> subprocess.CompletedProcess:
    """Ask uv for the versions that the lock gives `requirements`, from wheels alone."""
    command = [
        *(uv, "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate", "--only-binary", ":all:"),
        *("--python-platform", PLATFORMS[platform], "--python-version", python, "-c", "requirements.lock", requirements),
    ]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def resolved() -> dict[tuple[str, str, str], subprocess.CompletedProcess]:
    """What uv found for each platform, use and Python."""
    uv = str(UV) if UV.exists() else shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: pip install -r requirements-test.txt")
    cells = list(product(PLATFORMS, FILES, PYTHONS))
    with ThreadPoolExecutor(8) as pool:  # it waits for the package index most of the time
        results = list(pool.map(lambda cell: resolve(uv, cell[0], cell[2], FILES[cell[1]]), cells))
    if any(each.returncode and re.search(UNREACHABLE, each.stderr) for each in results):
        pytest.skip("the package index cannot be reached")
    return dict(zip(cells, results, strict=True))


def test_each_platform_is_stated():
    assert {platform for platform, _ in stated()} == PLATFORMS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("use", FILES)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_packages_resolve_with_the_lock_as_stated(resolved, platform, use):
    results = {python: resolved[platform, use, python] for python in PYTHONS}
    assert {python for python, done in results.items() if not done.returncode} == stated()[platform, use], results


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["Linux, x86-64", "Windows, x86-64"])
def test_newest_python_gets_no_tensorflow_and_one_keras(resolved, platform):
    done = resolved[platform, "training", PYTHONS[-1]]
    names = re.findall(r"^([\w-]+)==", done.stdout, re.MULTILINE)
    assert "keras" in names and not {"tensorflow", "keras-nightly", "tf-nightly"} & set(names), done.stderr


def test_pythons_are_the_same_everywhere():
    """pyproject.toml, the Makefile and the script that tests other Pythons name one range."""
    from tests import other_pythons

    assert other_pythons.PYTHONS == PYTHONS
    assert 'requires-python = ">=3.11,<3.15"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "(3, 11) <= sys.version_info < (3, 15)" in makefile and "3.11 to 3.14 is needed" in makefile


def test_missing_python_is_skipped_and_said(capsys, monkeypatch):
    from tests import other_pythons

    monkeypatch.setattr(other_pythons, "find_python", lambda version: None)
    assert other_pythons.main(["3.12"]) == 0
    assert capsys.readouterr().out == "Python 3.12: not on this machine: its tests are skipped\n"


def test_python_that_does_not_run_is_none(tmp_path, monkeypatch):
    """As pyenv's shims for versions that are not in use."""
    from tests import other_pythons

    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert other_pythons.find_python("3.12") is None
    shim.write_text("#!/bin/sh\necho 3.12\n")
    assert other_pythons.find_python("3.12") == str(shim)
