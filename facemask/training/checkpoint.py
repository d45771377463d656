"""The folder that a training keeps its state in, to go on after an interruption."""

import argparse
import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras

from facemask.errors import InputError

SETTINGS_NAME = "settings.json"  # in a checkpoint, of the training that it belongs to


def record_settings(args: argparse.Namespace, names: Sequence[str]) -> dict[str, str]:
    """Return the options of those names, and Keras' backend, as a checkpoint records them."""
    return {f"--{name.replace('_', '-')}": str(getattr(args, name)) for name in names} | {
        "KERAS_BACKEND": keras.backend.backend()
    }


def can_resume(checkpoint: Path, settings: dict[str, str]) -> bool:
    """Tell whether the folder holds an interrupted training. Raises InputError if that was begun with other settings.

    `settings` may be a part of those that it was begun with.
    """
    record = checkpoint / SETTINGS_NAME
    if not record.is_file():
        return False
    try:
        before = json.loads(record.read_text())
        changed = [name for name, value in settings.items() if before.get(name) != value]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{record}: broken; train anew, without --resume") from error
    if changed:
        was = before.get(changed[0])
        raise InputError(f"--resume: {checkpoint} was begun with another {changed[0]} ({was}); give that, or leave --resume away")
    return True


def check_checkpoint(checkpoint: Path) -> None:
    """Raise InputError if there is something of that name that no training made, which must not be removed."""
    if checkpoint.exists() and not (checkpoint / SETTINGS_NAME).is_file():
        raise InputError(
            f"{checkpoint}: is where the checkpoint goes, and no training made it; move it, or name the model otherwise"
        )


def start_checkpoint(checkpoint: Path, settings: dict[str, str]) -> None:
    """Make the folder that a training keeps its state in; what an earlier training left there is removed.

    Raises InputError if there is a folder of that name that no training made.
    """
    check_checkpoint(checkpoint)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)
    checkpoint.mkdir(parents=True)
    (checkpoint / SETTINGS_NAME).write_text(json.dumps(settings))


def read_history(log: Path) -> dict[str, list[float]]:
    """Return Keras' metrics by epoch from a CSVLogger's file, empty where there is none."""
    if not log.is_file():
        return {}
    with log.open(newline="") as file:
        whole = [row for row in csv.DictReader(file) if all(row.values())]  # a crash may cut the last one
    rows = list({row["epoch"]: row for row in whole}.values())  # an epoch whose checkpoint was not saved was done again
    names = [name for name in rows[0] if name != "epoch" and rows[0][name] != "NA"] if rows else []
    return {name: [float(row[name]) for row in rows] for name in names}
