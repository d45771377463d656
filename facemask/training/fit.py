"""Fine-tune MobileNetV2 to tell masks: any Keras 3 backend, on a CPU or a GPU."""

import sys
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

HEAD_RATE = 1e-3  # of Adam, for the head on the frozen backbone
HEAD_EPOCHS = 50
HEAD_BATCH = 256
FINE_TUNE_RATE = 2e-4  # of Adam at its highest; at 5e-4 the frozen BatchNorms let it diverge
TEMPERATURES = (1.0, 5.0)  # sought between: it only softens, since few held-out faces, all right, would ask for certainty
WARM_UP = 0.05  # of the steps


def train_head(network: Network, features: np.ndarray, labels: np.ndarray, validation: tuple, seed: int) -> dict:
    """Train the head on features that the frozen backbone gave once; return the history by metric.

    `features` is (n, 1280), `validation` the same pair of features and labels.
    """
    keras.utils.set_random_seed(seed)
    network.head.compile(keras.optimizers.Adam(HEAD_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
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

    `checkpoint` is a folder of `start_checkpoint`: where it holds a training, this goes on as if it had never
    stopped, but for the dropout's random numbers. Ctrl-C ends the training with the best weights so far. With
    `mixed_precision` a twin of the network learns in float16, which GPUs compute faster; weights stay float32.
    """
    given, network = network, in_mixed_precision(network, train.info) if mixed_precision else network
    for layer in network.model.get_layer("mobilenet_v2").layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    schedule = warm_up_and_fall(learning_rate, epochs * train.batches_per_epoch)
    network.model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    best, log = checkpoint / "best.weights.h5", checkpoint / "history.csv"
    before = read_history(log)
    train.start(len(before.get("loss", [])))
    if not before:
        network.model.save_weights(best)
    bar = TqdmCallback(epochs, verbose=1, disable=None)
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            best, save_best_only=True, save_weights_only=True, initial_value_threshold=min(before.get("val_loss", [np.inf]))
        ),
        keras.callbacks.CSVLogger(log, append=True),
        keras.callbacks.BackupAndRestore(checkpoint, double_checkpoint=True, delete_checkpoint=False),
        bar,
    ]
    with suppress(KeyboardInterrupt):
        network.model.fit(
            train,
            steps_per_epoch=train.batches_per_epoch,
            validation_data=validation,
            epochs=epochs,
            callbacks=callbacks,
            verbose=0 if sys.stderr.isatty() else 2,  # a bar, or a line an epoch
        )
    bar.on_train_end()  # closes it also after Ctrl-C
    network.model.load_weights(best)
    if given is not network:
        given.model.set_weights(network.model.get_weights())
    return read_history(log)


def has_gpu() -> bool:
    """Tell whether Keras computes on a GPU."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    with suppress(RuntimeError):  # JAX's, where there is none
        return bool(keras.distribution.list_devices("gpu"))
    return False


def warm_up_and_fall(learning_rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate that climbs to that in the first steps, WARM_UP of them, then falls to zero along a cosine."""
    warm_up = max(1, round(WARM_UP * steps))
    return keras.optimizers.schedules.CosineDecay(
        0.1 * learning_rate, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )


def calibrate(network: Network, features: np.ndarray, labels: np.ndarray) -> float:
    """Scale the head so that its probabilities are true on average on held-out faces; return the temperature.

    `features` is (n, 1280) of those faces. Temperature scaling (Guo et al., 2017): the logits are divided by the one
    number that makes the labels likeliest. It goes into the weights of the last layer; no label changes.
    """
    probabilities = network.head.predict(features, verbose=0)
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))  # up to a constant a face, which softmax ignores

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))

    temperature = float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))
    last = network.head.layers[-1]
    last.set_weights([weights / temperature for weights in last.get_weights()])
    return temperature
