"""The package: what it needs, what a wheel holds, and that both a checkout and an installation find the networks."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from facemask.cli import run as cli_run
from facemask.models import default_files
from facemask.models.face_detectors import choose_face_detector
from tests.helpers import EXAMPLES, ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
WHEEL_FILES = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
# What provides a module, where the names differ: the distribution itself, or the one that requires it.
DISTRIBUTIONS = {"cv2": "opencv-python", "PIL": "pillow", "sklearn": "scikit-learn", "paho": "paho-mqtt", "yaml": "pyyaml"}
DISTRIBUTIONS |= {"ray": "ray[data]", "fsspec": "ray[data]"}
DISTRIBUTIONS |= {"pillow_heif": "pillow-heif"}
DISTRIBUTIONS |= {
    "supervision": "trackers",
    "h5py": "keras",
    "scipy": "scikit-learn",
    "torch": "tensorflow",
}  # torch: in its place
MODULES_OF_EXTRAS = {
    "video": ["trackers", "supervision", "av"],
    "train": ["tensorflow", "keras", "h5py", "sklearn", "matplotlib", "onnx", "defusedxml", "scipy", "yaml"],
    "notify": ["apprise", "paho"],
    "archive": ["ray", "pyarrow", "fsspec"],
}


def dependencies(extras: list[str]) -> list[str]:
    return [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in EXTRAS[extra])]


def read_requirements(name: str) -> list[str]:
    """Return the lines of a requirements file that name a distribution, with those of the files that it includes."""
    lines = (line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    requirements = []
    for line in lines:
        if line.startswith("-r "):
            requirements += read_requirements(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            requirements.append(line)
    return requirements


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("requirements-detect.txt", ["video"]),
        ("requirements.txt", ["video", "train"]),
        ("requirements-notify.txt", ["video", "notify"]),
        ("requirements-export.txt", ["video", "train", "export"]),
        ("requirements-test.txt", ["video", "train", "notify", "export", "dev"]),
        ("requirements-archive.txt", ["video", "archive"]),
    ],
)
def test_requirements_files_list_the_same_as_the_package(name, extras):
    assert sorted(read_requirements(name)) == sorted(dependencies(extras))


def imported_distributions(*sources: str) -> set[str]:
    """Return the distributions of other projects that source files import, at their top or within a function."""
    names = set()
    for source in sources:
        for path in [ROOT / source] if source.endswith(".py") else sorted((ROOT / source).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(node.module.partition(".")[0])
    ours = {"facemask", *(path.stem for path in ROOT.glob("*.py"))}
    return {DISTRIBUTIONS.get(name, name) for name in names - ours - sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("sources", "extras"),
    [
        (["facemask/io", "facemask/detector.py", "facemask/boxes.py", "facemask/drawing.py", "detect_mask_image.py"], []),
        (["facemask/video", "detect_mask_video.py"], ["video", "notify"]),
        (["facemask/archive", "detect_mask_archive.py"], ["archive"]),
        (
            ["facemask", "detect_mask_image.py", "train_mask_detector.py", "evaluate_mask_detector.py"],
            ["video", "train", "notify", "export", "archive"],
        ),
    ],
)
def test_what_is_imported_is_declared(sources, extras):
    declared = {requirement.partition(">=")[0] for requirement in dependencies(extras)}
    assert imported_distributions(*sources) - declared == set()


def test_each_root_script_is_a_command():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert PROJECT["scripts"] == {name.replace("_", "-"): f"{name}:main" for name in scripts}
    assert {f"{name}.py" for name in scripts} <= WHEEL_FILES.keys()
    assert all(callable(import_module(name).main) for name in scripts)


def test_each_network_is_in_the_wheel_except_the_alternative_face_detector():
    networks = {str(path.relative_to(ROOT)) for folder in (ROOT, ROOT / "face_detector") for path in folder.glob("*.onnx")}
    assert networks - {"face_detector/res10_300x300_ssd.onnx"} == {name for name in WHEEL_FILES if name.endswith(".onnx")}


def test_checkout_finds_its_networks():
    assert default_files.MASK_CLASSIFIER == ROOT / "mask_detector.keras" and default_files.MASK_CLASSIFIER.is_file()
    assert choose_face_detector(default_files.FACE_DETECTOR).path.parent == ROOT / "face_detector"


def test_python_without_tensorflow_is_told_of_other_backends(monkeypatch):
    monkeypatch.setattr(cli_run.sys, "version_info", (3, 14, 8))
    message = cli_run.explain_import(ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow"))
    assert message == (
        "tensorflow: has no release for Python 3.14; use Python 3.13; to train, pip install jax and set KERAS_BACKEND=jax (or torch)"
    )
    first = ".".join(map(str, cli_run.TENSORFLOW_ENDS))
    assert [each for each in EXTRAS["train"] if each.startswith("tensorflow")] == [
        f"tensorflow>=2.18,<3; python_version < '{first}'"
    ]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The files that a wheel puts into site-packages, as pyproject.toml names them."""
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(ROOT / "facemask", folder / "facemask", ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in WHEEL_FILES.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, folder / target)
    return folder


def run_without(
    modules: list[str], script: str, arguments: list[str], packages: Path, folder: Path
) -> subprocess.CompletedProcess:
    """Run a script of `packages` in the working folder `folder`, as if those modules were not installed."""
    code = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); import {script}; sys.exit({script}.main({arguments!r}))"
    environment = os.environ | {"PYTHONPATH": str(packages), "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_images_need_no_extra_and_no_checkout(installed, tmp_path):
    modules = [*MODULES_OF_EXTRAS["video"], *MODULES_OF_EXTRAS["train"]]
    done = run_without(modules, "detect_mask_image", ["-i", str(EXAMPLES / "people.jpg"), "-o", "o.jpg"], installed, tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 8)
    assert str(installed / "facemask/networks/mask_detector.onnx") in done.stderr and (tmp_path / "o.jpg").is_file()


@pytest.mark.parametrize(
    ("script", "arguments", "extra", "requirements"),
    [
        ("detect_mask_video", ["-i", str(EXAMPLES / "people.jpg")], "video", "requirements-detect.txt"),
        ("detect_mask_video", ["-i", str(EXAMPLES / "people.jpg"), "--notify", "ntfy://a"], "notify", "requirements-notify.txt"),
        ("detect_mask_video", ["-i", str(EXAMPLES / "people.jpg"), "--mqtt", "127.0.0.1/a"], "notify", "requirements-notify.txt"),
        ("detect_mask_archive", ["-i", "photos", "-o", "out"], "archive", "requirements-archive.txt"),
        ("train_mask_detector", ["-d", "photos"], "train", "requirements.txt"),
        ("evaluate_mask_detector", ["-d", "photos"], "train", "requirements.txt"),
    ],
)
@pytest.mark.parametrize("place", ["installed", "checkout"])
def test_missing_extra_is_one_line(installed, tmp_path, script, arguments, extra, requirements, place):
    (tmp_path / "photos" / "images").mkdir(parents=True)
    (tmp_path / "photos" / "annotations").mkdir()
    packages = installed if place == "installed" else ROOT
    done = run_without(MODULES_OF_EXTRAS[extra], script, arguments, packages, tmp_path)
    what = f'"facemask-detector[{extra}]"' if place == "installed" else f"-r {requirements}"
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.endswith(f": is not installed; pip install {what}") and last.startswith("error: ")
    assert "Traceback" not in done.stderr
