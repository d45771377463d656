"""The folder that keeps the state of a training, so that it can be resumed."""

import argparse
import csv
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from facemask.errors import InputError
from facemask.training.model_name import checkpoint_folder

SETTINGS_NAME = "settings.json"  # in a checkpoint: the options of its training

logger = logging.getLogger(__name__)


def record_settings(args: argparse.Namespace, names: Sequence[str]) -> dict[str, str]:
    """Return the options with these names, and Keras' backend, as a checkpoint records them."""
    return {f"--{name.replace('_', '-')}": str(getattr(args, name)) for name in names} | {
        "KERAS_BACKEND": keras.backend.backend()
    }


def can_resume(checkpoint: Path, settings: dict[str, str]) -> bool:
    """Return whether the folder holds an interrupted training. Raises InputError if that was started with other settings.

    `settings` may be a part of the settings that it was started with.
    """
    record = checkpoint / SETTINGS_NAME
    if not record.is_file():
        return False
    try:
        recorded = json.loads(record.read_text())
        changed = [name for name, value in settings.items() if recorded.get(name) != value]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{record}: corrupt; train again, without --resume") from error
    if changed:
        previous = recorded.get(changed[0])
        raise InputError(
            f"--resume: {checkpoint} was started with another {changed[0]} ({previous}); give that one, or omit --resume"
        )
    return True


def check_checkpoint(checkpoint: Path) -> None:
    """Raise InputError if there is a file or folder of this name that no training made, which must not be removed."""
    if checkpoint.exists() and not (checkpoint / SETTINGS_NAME).is_file():
        raise InputError(
            f"{checkpoint}: is in the place of the checkpoint, and no training made it; move it, or give the model another name"
        )


def start_checkpoint(checkpoint: Path, settings: dict[str, str]) -> None:
    """Make the folder for the state of a training; removes the state of an earlier one.

    Raises InputError if there is a folder of this name that no training made.
    """
    check_checkpoint(checkpoint)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)
    checkpoint.mkdir(parents=True)
    (checkpoint / SETTINGS_NAME).write_text(json.dumps(settings))


def read_history(log: Path) -> dict[str, list[float]]:
    """Return Keras' metrics by epoch from the file of a CSVLogger, empty if there is no file."""
    if not log.is_file():
        return {}
    with log.open(newline="") as file:
        whole = [row for row in csv.DictReader(file) if all(row.values())]  # a crash may cut the last row
    rows = list({row["epoch"]: row for row in whole}.values())  # an epoch whose checkpoint was not saved was repeated
    names = [name for name in rows[0] if name != "epoch" and rows[0][name] != "NA"] if rows else []
    return {name: [float(row[name]) for row in rows] for name in names}


@dataclass
class Checkpoint:
    """The checkpoint of a training, and the settings that it records."""

    folder: Path
    settings: dict[str, str]
    is_resumed: bool

    def add_setting(self, name: str, value: str) -> None:
        """Record a setting that is known only now. Raises InputError if the training to resume was started with another."""
        self.settings[name] = value
        if self.is_resumed:
            can_resume(self.folder, self.settings)

    def start(self) -> None:
        """Make the folder, unless a training is resumed."""
        if not self.is_resumed:
            start_checkpoint(self.folder, self.settings)

    def remove(self) -> None:
        """Remove the folder of a training that is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_checkpoint(model: Path, settings: dict[str, str], *, resume: bool) -> Checkpoint:
    """Return the checkpoint beside a model, to `resume` its training if it was interrupted.

    Raises InputError if that training was started with other settings, or if no training made what has the folder's name.
    """
    folder = checkpoint_folder(model)
    is_resumed = resume and can_resume(folder, settings)
    if resume and not is_resumed:
        logger.warning("--resume: there is no interrupted training of %s; a new one starts", model)
    if not is_resumed:
        check_checkpoint(folder)
    return Checkpoint(folder, settings, is_resumed)
