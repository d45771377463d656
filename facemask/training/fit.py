"""Fine-tune MobileNetV2 to classify masks: any Keras 3 backend, on a CPU or a GPU."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from tqdm.keras import TqdmCallback

from facemask.models.keras_network import Network, in_mixed_precision
from facemask.training.batches import AugmentedBatches, FaceBatches
from facemask.training.checkpoint import read_history

HEAD_RATE = 1e-3  # learning rate of Adam, for the head on the frozen backbone
HEAD_EPOCHS = 50
HEAD_BATCH = 256
FINE_TUNE_RATE = 2e-4  # maximum learning rate of Adam; at 5e-4 training diverges, as the BatchNorms are frozen
# Limits of the temperature: it only softens, as a few held-out faces that are all right would ask for certainty.
TEMPERATURES = (1.0, 5.0)
WARM_UP = 0.05  # share of the steps


def train_head(network: Network, features: np.ndarray, labels: np.ndarray, validation: tuple, seed: int) -> dict:
    """Train the head on features that the frozen backbone computed once; return the history by metric.

    `features` is (n, 1280), `labels` (n,) int, `validation` the same pair for the validation split.
    """
    keras.utils.set_random_seed(seed)
    loss = loss_among(np.isin(range(len(network.info.classes)), labels))
    network.head.compile(keras.optimizers.Adam(HEAD_RATE), loss, metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    history = network.head.fit(
        features,
        labels,
        validation_data=validation,
        epochs=HEAD_EPOCHS,
        batch_size=HEAD_BATCH,
        callbacks=[stop],
        verbose=0,
    )
    return history.history


def loss_among(present: np.ndarray) -> str | Callable:
    """Return the cross-entropy among the classes that are present, bool (classes,), as Keras takes a loss.

    The outputs of the others get no gradient. With all classes it is Keras' own; without this, a class of which no face is
    shown would be unlearnt.
    """
    if present.all():
        return "sparse_categorical_crossentropy"
    mask = present.astype("float32")

    def loss(true, predicted):  # tensors of the backend
        shown = predicted * keras.ops.convert_to_tensor(mask)
        return keras.losses.sparse_categorical_crossentropy(true, shown / keras.ops.sum(shown, axis=-1, keepdims=True))

    return loss


def fine_tune(
    network: Network,
    train: AugmentedBatches,
    validation: FaceBatches,
    *,
    epochs: int,
    learning_rate: float = FINE_TUNE_RATE,
    mixed_precision: bool = False,
    checkpoint: Path,
) -> dict:
    """Train the whole network, BatchNorm frozen, and leave it with the weights of its best epoch; return the history.

    `checkpoint` is a folder of `start_checkpoint`: if it holds a training, this resumes it as if it had never stopped,
    except for the random numbers of dropout. Ctrl-C ends the training with the best weights so far. With
    `mixed_precision` a copy of the network trains in float16, which GPUs compute faster; weights stay float32.
    """
    trained = in_mixed_precision(network, train.info) if mixed_precision else network
    loss = loss_among(np.isin(range(len(train.info.classes)), train.labels))
    _compile(trained, loss, learning_rate, epochs * train.batches_per_epoch)
    best, log = checkpoint / "best.weights.h5", checkpoint / "history.csv"
    previous = read_history(log)
    train.start(len(previous.get("loss", [])))
    if not previous:
        trained.model.save_weights(best)
    bar, history = TqdmCallback(epochs, verbose=1, disable=None), keras.callbacks.CSVLogger(log, append=True)
    with suppress(KeyboardInterrupt):
        trained.model.fit(
            train,
            steps_per_epoch=train.batches_per_epoch,
            validation_data=validation,
            epochs=epochs,
            callbacks=[*_checkpoint_callbacks(checkpoint, best, history, previous), bar],
            shuffle=False,  # `train` shuffles by itself
            verbose=0 if sys.stderr.isatty() else 2,  # a bar, or one line per epoch
        )
    bar.on_train_end()  # after Ctrl-C, Keras closes neither the bar nor the history
    if history.csv_file:
        history.csv_file.close()
    trained.model.load_weights(best)
    if trained is not network:
        network.model.set_weights(trained.model.get_weights())
    return read_history(log)


def interpolate(before: Sequence[np.ndarray], after: Sequence[np.ndarray], share: float) -> list[np.ndarray]:
    """Return weights between those before and after fine-tuning; `share` is the part of those after, 0..1.

    What a fine-tuned network gains on new photos and what it loses on old ones change at different paces on the way, so
    that a point between is better on both (WiSE-FT; Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    """
    return [(1 - share) * old + share * new for old, new in zip(before, after, strict=True)]


def _compile(network: Network, loss: str | Callable, learning_rate: float, steps: int) -> None:
    """Prepare the network to be trained as a whole, its BatchNorm layers frozen."""
    for layer in network.model.get_layer("mobilenet_v2").layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    optimizer = keras.optimizers.Adam(warmup_cosine_schedule(learning_rate, steps))
    network.model.compile(optimizer, loss, metrics=["accuracy"])


def _checkpoint_callbacks(
    checkpoint: Path, best: Path, history: keras.callbacks.CSVLogger, previous: dict
) -> list[keras.callbacks.Callback]:
    """Return what writes the best weights, the history, and the state to resume from, after each epoch."""
    best_loss = min(previous.get("val_loss", [np.inf]))
    return [
        keras.callbacks.ModelCheckpoint(best, save_best_only=True, save_weights_only=True, initial_value_threshold=best_loss),
        history,
        keras.callbacks.BackupAndRestore(checkpoint, double_checkpoint=True, delete_checkpoint=False),
    ]


def has_gpu() -> bool:
    """Return whether Keras computes on a GPU."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    with suppress(RuntimeError):  # raised by JAX without a GPU
        return bool(keras.distribution.list_devices("gpu"))
    return False


def warmup_cosine_schedule(learning_rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate that rises to `learning_rate` in the first WARM_UP of the steps, then falls to 0 as a cosine."""
    warm_up = max(1, round(WARM_UP * steps))
    return keras.optimizers.schedules.CosineDecay(
        0.1 * learning_rate, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )


def calibrate(network: Network, features: np.ndarray, labels: np.ndarray) -> float:
    """Scale the head so that its probabilities are calibrated on held-out faces; return the temperature.

    `features` is (n, 1280) of those faces, `labels` (n,) int. Temperature scaling (Guo et al., "On Calibration of Modern
    Neural Networks", 2017): the logits are divided by the one number that maximizes the likelihood of the labels. The
    weights of the last layer absorb it; no label changes.
    """
    probabilities = network.head.predict(features, verbose=0)
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))  # up to one constant per face, which softmax ignores

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))

    temperature = float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))
    last_layer = network.head.layers[-1]
    last_layer.set_weights([weights / temperature for weights in last_layer.get_weights()])
    return temperature
