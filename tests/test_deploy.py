"""The files of docs/deploy: each name that they use exists, and they say what the project's other files say."""

import json
import re
import tomllib

import pytest
import yaml

from detect_mask_video import build_parser
from tests.helpers import ROOT

DEPLOY = ROOT / "docs/deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["facemask"]
UNIT = (DEPLOY / "facemask.service").read_text(encoding="utf-8")


def commands() -> dict[str, list[str]]:
    """Return the arguments of detect_mask_video.py in each file."""
    started = re.search(r"^ExecStart=\S+ detect_mask_video.py (.*)", UNIT, re.MULTILINE)[1].split()
    image = json.loads(re.search(r"^CMD (.*)", DOCKERFILE, re.MULTILINE)[1])
    return {"image": image, "compose": COMPOSE["command"], "unit": started}


@pytest.mark.parametrize("name", ["image", "compose", "unit"])
def test_arguments_are_those_of_the_command(name):
    args = build_parser().parse_args(commands()[name])
    assert args.serve[1] == 8000 and args.events is not None


def test_what_is_copied_exists_and_is_not_ignored():
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"]
    assert all(any(ROOT / name in ROOT.glob(pattern) for pattern in kept) for name in copied)
    assert {"mask_detector.onnx", "mask_detector.int8.onnx", "requirements.lock", "facemask", "face_detector"} <= set(copied)


def test_image_has_a_supported_python_and_no_root():
    version = tuple(map(int, re.search(r"^FROM python:(\d+)\.(\d+)-slim", DOCKERFILE, re.MULTILINE).groups()))
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    lowest, above = (tuple(map(int, each.split("."))) for each in re.fullmatch(r">=([\d.]+),<([\d.]+)", requires).groups())
    assert lowest <= version < above
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users and users[-1] != "root" and int(users[-1]) > 0
    assert DOCKERFILE.index("USER") < DOCKERFILE.index("ENTRYPOINT")


def test_image_pins_what_make_pins():
    pin = "sed -n '/^pip==/,/[^\\\\]$/p' requirements.lock"
    assert pin in DOCKERFILE and pin.replace("$", "$$") in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all("-c requirements.lock" in line or "pip.lock" in line for line in re.findall(r"pip install.*", DOCKERFILE))


def test_ports_and_build_of_compose_are_those_of_the_image():
    assert (DEPLOY / COMPOSE["build"]["context"]).resolve() == ROOT
    assert ROOT / COMPOSE["build"]["dockerfile"] == DEPLOY / "Dockerfile"
    exposed = re.search(r"^EXPOSE (\d+)", DOCKERFILE, re.MULTILINE)[1]
    assert COMPOSE["ports"] == [f"127.0.0.1:{exposed}:{exposed}"] and f", {exposed}, " in DOCKERFILE
