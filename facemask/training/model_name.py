"""The name of the model to write where none is given: never that of a model that is there."""

import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path

DEFAULT_NAME = Path("mask_detector.keras")

logger = logging.getLogger(__name__)


def default_model(*, overwrite: bool, resume: bool) -> Path:
    """Return DEFAULT_NAME, or with a number where a model of this name exists, unless it is to be overwritten.

    To `resume`, it is the name of the last interrupted training, if there is one.
    """
    if overwrite:
        return DEFAULT_NAME
    free = next(path for path in _names() if not path.exists() and not path.with_suffix(".onnx").exists())
    if resume:
        interrupted = [path for path in _names_until(free) if checkpoint_folder(path).is_dir()]
        return interrupted[-1] if interrupted else free
    if free != DEFAULT_NAME:
        logger.info("%s exists: the new model will be %s; --overwrite replaces, -m names it", DEFAULT_NAME, free)
    return free


def checkpoint_folder(model: Path) -> Path:
    """Return where the state of the training of a model is kept."""
    return model.with_name(f"{model.stem}.checkpoint")


def _names() -> Iterator[Path]:
    yield DEFAULT_NAME
    yield from (DEFAULT_NAME.with_stem(f"{DEFAULT_NAME.stem}-{number}") for number in count(2))


def _names_until(last: Path) -> Iterator[Path]:
    for path in _names():
        yield path
        if path == last:
            return
