"""Imports run one way: which part of the program may import which, read from the source of the whole tree."""

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

LEAVES = {"types", "errors", "labels", "boxes", "turns", "parallel"}  # modules of the package that import next to nothing of ours
BELOW_THE_DETECTOR = {"drawing", "io", "models", *LEAVES}
# A part is a folder or module of `facemask`, or a folder of the checkout; "scripts" are the files beside it. Each may
# import itself and what is listed here.
ALLOWED = {
    "types": {"labels"},
    "errors": set(),
    "parallel": set(),
    "labels": set(),
    "boxes": {"types", "errors"},
    "turns": {"types"},
    "drawing": LEAVES,
    "models": LEAVES,
    "io": LEAVES,
    "detector": BELOW_THE_DETECTOR,
    "api": {"detector", *BELOW_THE_DETECTOR},
    "serving": {"errors"},
    "video": {"serving", "detector", *BELOW_THE_DETECTOR},
    "images": {"detector", *BELOW_THE_DETECTOR},
    "app": {"images", "serving", "detector", *BELOW_THE_DETECTOR},
    "archive": {"detector", "video", *BELOW_THE_DETECTOR},
    "training": {"detector", *BELOW_THE_DETECTOR},
    "export": BELOW_THE_DETECTOR,
    "evaluation": {"detector", "training", *BELOW_THE_DETECTOR},  # of training: how annotated images are read
    "cli": {"api", "detector", *BELOW_THE_DETECTOR},
}
PACKAGE = {
    "api", "app", "archive", "cli", "evaluation", "export", "images", "serving", "training", "video", "detector", *BELOW_THE_DETECTOR
}  # fmt: skip
ALLOWED |= {
    "__init__": PACKAGE - {"app", "cli", "archive"},
    "__main__": PACKAGE,
    "scripts": PACKAGE,
    "face_detector": PACKAGE,
    "dataset": PACKAGE,
    "docs": PACKAGE,
    "examples": PACKAGE,
    "benchmarks": {"examples", *PACKAGE},
    "web": PACKAGE,
}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
FOLDERS = {"face_detector", "dataset", "docs", "examples", "benchmarks", "web"}


def part_of(module: str) -> str | None:
    """Return the part that a module belongs to, named as in an import; None for another project's."""
    first, *rest = module.split(".")
    if first == "facemask":
        return rest[0] if rest else "__init__"
    if first in SCRIPTS:
        return "scripts"
    return first if first in FOLDERS | {"tests"} else None


def imported_modules(source: str) -> set[str]:
    """Return the modules that a source file imports, at its top or within a function."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from facemask import cli` names a part; `from facemask.cli import run` is in one already
            modules |= {f"{node.module}.{name.name}" for name in node.names} if node.module == "facemask" else {node.module}
    return modules


def forbidden_imports(module: str, source: str) -> list[str]:
    """Return what a module of that name imports and must not."""
    part = part_of(module)
    imported = {name: part_of(name) for name in imported_modules(source)}
    return sorted(name for name, other in imported.items() if other not in (None, part) and other not in ALLOWED[part])


def own_files() -> list[Path]:
    files = [path for folder in ("facemask", *sorted(FOLDERS)) for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*sorted(ROOT.glob("*.py")), *files]


@pytest.mark.parametrize("path", own_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert forbidden_imports(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "forbidden"),
    [
        pytest.param(
            "facemask.models.mask_classifier", "import facemask.training.fit", ["facemask.training.fit"], id="models, training"
        ),
        pytest.param(
            "facemask.models.mask_classifier",
            "def load():\n    from facemask.training.fit import fine_tune",
            ["facemask.training.fit"],
            id="within a function",
        ),
        pytest.param("facemask.io.outputs", "from facemask.cli.run import run", ["facemask.cli.run"], id="io, cli"),
        pytest.param("facemask.io.outputs", "from facemask import cli, errors", ["facemask.cli"], id="a part by its name"),
        pytest.param(
            "facemask.drawing",
            "from facemask.video.tracker import MaskTracker",
            ["facemask.video.tracker"],
            id="annotate, video",
        ),
        pytest.param("facemask.video.session", "import detect_mask_video", ["detect_mask_video"], id="a script"),
        pytest.param("detect_mask_video", "from tests.helpers import ROOT", ["tests.helpers"], id="tests"),
        pytest.param("facemask.types", "from facemask.errors import InputError", ["facemask.errors"], id="types, anything"),
        pytest.param("facemask.video.session", "import cv2\nfrom facemask.io.images import read_image", [], id="allowed"),
        pytest.param("facemask.video.session", "from facemask.video.tracker import MaskTracker", [], id="its own folder"),
    ],
)
def test_forbidden_imports_are_found(module, source, forbidden):
    assert forbidden_imports(module, source) == forbidden


def test_each_part_is_in_the_table():
    parts = {path.stem if path.suffix else path.name for path in (ROOT / "facemask").iterdir() if path.suffix in (".py", "")}
    assert parts - {"__pycache__"} == ALLOWED.keys() - FOLDERS - {"scripts"}
