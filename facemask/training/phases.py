"""The phases of a training in order, with what they log: the head on frozen features, the whole network, calibration."""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import numpy as np

from facemask.models.keras_network import Network
from facemask.training.batches import AugmentedBatches, FaceBatches
from facemask.training.checkpoint import Checkpoint
from facemask.training.crops import Crop
from facemask.training.fit import calibrate, fine_tune, interpolate, train_head
from facemask.training.split import Split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How the network is trained."""

    epochs: int  # of fine-tuning; 0 trains only the head
    batch_size: int
    learning_rate: float  # maximum of Adam's, in fine-tuning
    interpolation: float  # share of the fine-tuned weights in the result, 0..1; the rest are those after the head's training
    mixed_precision: bool
    seed: int
    workers: int  # threads that prepare faces


@dataclass(frozen=True)
class Histories:
    """Keras' metrics by epoch of both phases."""

    head: dict[str, list[float]]
    fine_tuning: dict[str, list[float]]  # empty without fine-tuning
    is_complete: bool  # not ended early by Ctrl-C


def train_network(
    network: Network, crops: Sequence[Crop], features: np.ndarray, split: Split, recipe: Recipe, checkpoint: Checkpoint
) -> Histories:
    """Train the head, then the whole network, or resume that, and calibrate its probabilities.

    `features` is (n, 1280), of the frozen backbone. Raises InputError if the checkpoint is of a training with another split
    of the photos.
    """
    training, validation = ([crops[index] for index in indices] for indices in (split.train, split.validation))
    train = AugmentedBatches(training, network.info, recipe.batch_size, seed=recipe.seed, workers=recipe.workers)
    held_out = FaceBatches(validation, network.info, recipe.batch_size)
    checkpoint.add_setting("split of the photos", split.fingerprint(crops))
    logger.info("phase 1: the head, on those features")
    head = train_head(network, features[split.train], train.labels, (features[split.validation], held_out.labels), recipe.seed)
    logger.info("%d epochs, validation accuracy %.4f", len(head["loss"]), max(head["val_accuracy"]))
    history = _fine_tune(network, train, held_out, recipe, checkpoint) if recipe.epochs else {}
    temperature = calibrate(network, network.features.predict(held_out, verbose=0), held_out.labels)
    logger.info("probabilities calibrated on the validation split: temperature %.2f", temperature)
    return Histories(head, history, is_complete=len(history.get("loss", [])) == recipe.epochs)


def _fine_tune(
    network: Network, train: AugmentedBatches, held_out: FaceBatches, recipe: Recipe, checkpoint: Checkpoint
) -> dict[str, list[float]]:
    """Train the whole network; return Keras' metrics by epoch."""
    before = network.model.get_weights()
    how = "where it was interrupted" if checkpoint.is_resumed else "on augmented faces; Ctrl-C ends it early, --resume resumes it"
    logger.info("phase 2: the whole network, %s", how)
    checkpoint.start()
    with redirect_stdout(sys.stderr):  # Keras' progress bars
        history = fine_tune(
            network,
            train,
            held_out,
            epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            mixed_precision=recipe.mixed_precision,
            checkpoint=checkpoint.folder,
        )
    network.model.set_weights(interpolate(before, network.model.get_weights(), recipe.interpolation))
    epochs = len(history["loss"])
    if epochs < recipe.epochs:
        message = "fine-tuning ended early, after %d of %d epochs; the same command with --resume resumes it"
        logger.info(message, epochs, recipe.epochs)
    return history
