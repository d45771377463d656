"""Run the tests of detection on the other Pythons that this machine has, each with the locked packages.

python -m tests.other_pythons            all of 3.11 to 3.14 but the one that runs this
python -m tests.other_pythons 3.14       that one

Each gets an environment .venv-pyXY, made once for each lock. A Python that the machine lacks is skipped, and said. The exit
code is that of the first tests that failed.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# Without `training`, which needs Keras. Most of what a version of Python changes is in what reads files and runs commands.
TESTS = (
    *("tests/cli", "tests/test_api.py", "tests/test_detector.py", "tests/test_parallel.py", "tests/test_detect_mask_image.py"),
    *("tests/io/test_outputs.py", "tests/models/test_center_face.py", "tests/models/test_mask_classifier.py"),
    *("tests/video/test_decoder.py", "tests/video/test_tracker.py"),
)
MARKS = "not slow and not shared and not training"


def find_python(version: str) -> str | None:
    """Return the path of a Python of that version, as "3.12", on the PATH or of pyenv; None if there is none that runs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    code = "import sys, ssl, venv; print('%d.%d' % sys.version_info[:2])"
    for name in filter(None, names):  # pyenv's shims are there for Pythons that are not in use, and fail
        done = subprocess.run([name, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return str(name)
    return None


def make_environment(python: str, version: str) -> str:
    """Return the Python of an environment with what detection and its tests need, made anew if the lock has changed."""
    folder = ROOT / f".venv-py{version.replace('.', '')}"
    inner, stamp = folder / "bin/python", folder / "requirements.lock"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == lock:
        return str(inner)

    def pip(*arguments: str) -> None:
        command = [str(inner), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
        subprocess.run(command, cwd=ROOT, check=True)

    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    pin = re.search(r"^pip==.*?[^\\]$", lock, re.MULTILINE | re.DOTALL)  # as the Makefile: it checks the constraints' hashes
    (folder / "pip.lock").write_text(pin[0] + "\n", encoding="utf-8")
    pip("install", "--require-hashes", "-r", str(folder / "pip.lock"))
    locked = ("-c", "requirements.lock")
    pip("install", *locked, "-r", "requirements-notify.txt", "pytest", "hypothesis", "onnx")
    if subprocess.run([str(inner), "-c", "import cv2"], capture_output=True).returncode:  # a desktop's libraries are missing
        pip("uninstall", "--yes", "opencv-python")
        pip("install", *locked, "--force-reinstall", "--no-deps", "opencv-python-headless")
    stamp.write_text(lock, encoding="utf-8")
    return str(inner)


def main(versions: list[str]) -> int:
    present = "{}.{}".format(*sys.version_info[:2])
    result = 0
    for version in versions or [each for each in PYTHONS if each != present]:
        python = find_python(version)
        if python is None:
            print(f"Python {version}: not on this machine: its tests are skipped", flush=True)
            continue
        print(f"Python {version}: {python}", flush=True)
        command = [make_environment(python, version), "-m", "pytest", "-q", "-m", MARKS, *TESTS]
        result = result or subprocess.run(command, cwd=ROOT).returncode
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
