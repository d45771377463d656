"""Fine-tune MobileNetV2 to tell masks: any Keras 3 backend, on a CPU or a GPU."""

import argparse
import csv
import json
import shutil
import sys
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import keras
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from tqdm.keras import TqdmCallback

from facemask.crops import crop_face
from facemask.errors import InputError
from facemask.io.outputs import CHECKSUM_LENGTH, LARGEST_MODEL, atomic_path, checksum, read_model, sha256
from facemask.models.mask_classifier import METADATA_NAME, SHA256_NAME, ZIP_ERRORS, ModelInfo
from facemask.models.model_file import with_checksum
from facemask.training.augment import augment
from facemask.training.dataset import FacePatch
from facemask.training.onnx_export import to_onnx

HEAD_RATE = 1e-3  # of Adam, for the head on the frozen backbone
HEAD_EPOCHS = 50
HEAD_BATCH = 256
DROPOUT = 0.3  # before the last layer
FINE_TUNE_RATE = 2e-4  # of Adam at its highest; at 5e-4 the frozen BatchNorms let it diverge
WEIGHTS_NAME = "model.weights.h5"  # in a .keras file (a zip)
SETTINGS_NAME = "settings.json"  # in a checkpoint, of the training that it belongs to
TEMPERATURES = (1.0, 5.0)  # sought between: it only softens, since few held-out faces, all right, would ask for certainty
WARM_UP = 0.05  # of the steps


class FaceBatches(keras.utils.PyDataset):
    """Batches of all patches in their order: faces, float32 (n, size, size, 3) RGB 0..255, and labels, int (n,)."""

    def __init__(self, patches: Sequence[FacePatch], labels: np.ndarray, info: ModelInfo, batch_size: int) -> None:
        super().__init__()
        self.patches, self.labels, self.info, self.batch_size = patches, labels, info, batch_size

    def __len__(self) -> int:
        return -(-len(self.patches) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        crops = [crop_face(patch.image, patch.box, self.info.input_size, self.info.margin) for patch in self.patches[part]]
        return np.stack(crops).astype(np.float32), self.labels[part]


class AugmentedBatches(keras.utils.PyDataset):
    """Batches as FaceBatches', without end: each epoch shows each face once, in a new order, changed at random.

    Of a face with several patches an epoch draws one. What a batch holds follows from its number, counted through all
    epochs, and the seed, so a run repeats whatever the number of workers and however far ahead they prepare.
    """

    num_batches = None  # without end

    def __init__(
        self,
        patches: Sequence[FacePatch],
        labels: np.ndarray,
        info: ModelInfo,
        batch_size: int,
        *,
        faces: np.ndarray,
        seed: int,
        workers: int = 1,
        max_queue_size: int = 8,
    ) -> None:
        """`faces` (n,) int: patches of the same number show the same face."""
        super().__init__(workers=workers, max_queue_size=max_queue_size)
        self.patches, self.labels, self.info, self.batch_size = patches, labels, info, batch_size
        self.faces, self.seed = faces, seed
        self.batches_per_epoch = -(-len(np.unique(faces)) // batch_size)
        self.first = 0

    def start(self, epoch: int) -> None:
        """Let batch 0 be the first of that epoch, counted from 0."""
        self.first = epoch * self.batches_per_epoch

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, batch = divmod(self.first + number, self.batches_per_epoch)
        chosen = self._order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, epoch, batch))
        crops = [augment(self.patches[i], self.info.input_size, self.info.margin, rng) for i in chosen]
        return np.stack(crops).astype(np.float32), self.labels[chosen]

    def _order(self, epoch: int) -> np.ndarray:
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(len(self.patches))
        return shuffled[np.sort(np.unique(self.faces[shuffled], return_index=True)[1])]


@dataclass(frozen=True)
class Network:
    """A classifier and its two parts, which share their layers with it."""

    info: ModelInfo
    model: keras.Model  # (n, size, size, 3) RGB 0..255 -> (n, classes) probabilities
    features: keras.Model  # (n, size, size, 3) RGB 0..255 -> (n, 1280)
    head: keras.Model  # (n, 1280) -> (n, classes) probabilities


def build_network(info: ModelInfo, weights: str) -> Network:
    """Build MobileNetV2 with a new head for `info`'s classes, scaling to [-1, 1] inside.

    `weights` is "imagenet" (downloaded by Keras), a `.weights.h5` file of MobileNetV2(include_top=False), or a
    detector `.keras` to go on from, whose head is kept if its classes are the same. Raises InputError if they cannot be
    had or do not fit.
    """
    backbone = _load_backbone(info.input_size, "imagenet" if weights == "imagenet" else None)
    network = _build_on(backbone, info)
    if weights.endswith(".keras"):
        _copy_weights(network, info, weights)
    elif weights != "imagenet":
        remedy = "give mobilenet_v2_imagenet_no_top.weights.h5 or a detector's .keras"
        _load_weights(backbone, Path(weights), weights, "MobileNetV2(include_top=False)'s weights", remedy)
    return network


def _build_on(backbone: keras.Model, info: ModelInfo) -> Network:
    pooled = keras.Input((backbone.output.shape[-1],), name="pooled")
    dropped = keras.layers.Dropout(DROPOUT)(pooled)
    dense = keras.layers.Dense(len(info.classes), activation="softmax", dtype="float32", name="probabilities")
    head = keras.Model(pooled, dense(dropped), name="head")
    images = keras.Input(backbone.input.shape[1:], name="images")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(images)
    # training=False holds for good: BatchNorm keeps its ImageNet statistics also while fine-tuning.
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(scaled, training=False))
    model = keras.Model(images, head(features), name="mask_detector")
    return Network(info, model, keras.Model(images, features, name="feature_extractor"), head)


def _load_backbone(size: int, weights: str | None) -> keras.Model:
    arguments = {"input_shape": (size, size, 3), "include_top": False, "name": "mobilenet_v2"}
    try:
        return keras.applications.MobileNetV2(weights=weights, **arguments)
    except Exception as error:  # urllib's, socket's and Keras' own: any of them means no download
        if weights is None:
            raise
        raise InputError(
            f"--weights imagenet: cannot be downloaded ({_first_line(error)}); give a file: "
            "--weights mobilenet_v2_imagenet_no_top.weights.h5, or a detector's .keras"
        ) from error


def _copy_weights(network: Network, info: ModelInfo, path: str) -> None:
    source = load_keras(path)
    network.model.get_layer("mobilenet_v2").set_weights(source.model.get_layer("mobilenet_v2").get_weights())
    if source.info.classes == info.classes:
        network.head.set_weights(source.head.get_weights())


def load_keras(path: str | Path) -> Network:
    """Load a `.keras` file of `save_detector`.

    Only the numbers are read from it: the network is built here, so nothing that the file may say of layers, functions or
    modules is ever run. Raises InputError if it is missing, broken or of another network.
    """
    model = read_model(path)
    info = ModelInfo.of_keras(path, model)
    network = _build_on(_load_backbone(info.input_size, None), info)
    with TemporaryDirectory() as folder:
        weights = Path(folder) / WEIGHTS_NAME
        try:
            with zipfile.ZipFile(BytesIO(model)) as archive:
                weights.write_bytes(archive.read(WEIGHTS_NAME))
        except ZIP_ERRORS as error:
            raise InputError(f"{path}: not a model written by train_mask_detector.py; train it anew") from error
        _load_weights(network.model, weights, path, "a model written by train_mask_detector.py", "train it anew")
    return network


def _load_weights(model: keras.Model, file: Path, name: str | Path, expected: str, remedy: str) -> None:
    """Read the model's weights from an HDF5 file. Raises InputError, calling it `name`, if they do not fit."""
    why_not = _what_is_strange(file)
    if not why_not:
        try:
            with warnings.catch_warnings(action="ignore"):  # Keras' hundreds of what it skips, before it raises
                model.load_weights(file)
            return
        except Exception:  # Keras' and h5py's have no common base below it
            why_not = "of another network"
    raise InputError(f"{name}: not {expected} ({why_not}); {remedy}")


def _what_is_strange(path: Path) -> str:
    """Say what no weights are in an HDF5 file: data elsewhere, other things than numbers, too many; "" if nothing is."""
    size = 0

    def look(name: str, link: object) -> str | None:
        nonlocal size
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if item is None or (isinstance(item, h5py.Dataset) and (item.is_virtual or item.external)):
            return "its data lie elsewhere"
        if isinstance(item, h5py.Dataset):
            size += item.nbytes
            if item.dtype.kind not in "fiub":
                return "it holds other things than numbers"
        return "it is too large" if size > LARGEST_MODEL else None

    try:
        with h5py.File(path, "r") as file:
            return file.visititems_links(look) or ""
    except Exception:  # as above
        return "no HDF5 file, or a broken one"


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
    given, network = network, _in_mixed_precision(network, train.info) if mixed_precision else network
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


def _in_mixed_precision(network: Network, info: ModelInfo) -> Network:
    """Return the same network, which computes in float16."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        twin = _build_on(_load_backbone(info.input_size, None), info)
    finally:
        keras.config.set_dtype_policy(policy)
    twin.model.set_weights(network.model.get_weights())
    return twin


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


def read_history(log: Path) -> dict[str, list[float]]:
    """Return Keras' metrics by epoch from a CSVLogger's file, empty where there is none."""
    if not log.is_file():
        return {}
    with log.open(newline="") as file:
        whole = [row for row in csv.DictReader(file) if all(row.values())]  # a crash may cut the last one
    rows = list({row["epoch"]: row for row in whole}.values())  # an epoch whose checkpoint was not saved was done again
    names = [name for name in rows[0] if name != "epoch" and rows[0][name] != "NA"] if rows else []
    return {name: [float(row[name]) for row in rows] for name in names}


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


def save_detector(model: keras.Model, info: ModelInfo, path: str | Path) -> Path:
    """Write `path` (.keras, with `info` inside) and the .onnx beside it; return the latter's path."""
    path = Path(path)
    uncompiled = keras.Model(model.input, model.output, name=model.name)  # without the optimizer's state: a third of the size
    with atomic_path(path) as temporary:
        uncompiled.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(METADATA_NAME, info.to_json())
            archive.comment = bytes(CHECKSUM_LENGTH)  # at the very end
        data = temporary.read_bytes()[:-CHECKSUM_LENGTH]
        temporary.write_bytes(data + checksum(data))
    return export_onnx(model, info, path)


def export_onnx(model: keras.Model, info: ModelInfo, keras_path: Path) -> Path:
    """Write the `.onnx` beside a `.keras` file: the same network, with `info` and the file's SHA-256 inside."""
    onnx_path = keras_path.with_suffix(".onnx")
    proto = to_onnx(model, {METADATA_NAME: info.to_json(), SHA256_NAME: sha256(keras_path)})
    with atomic_path(onnx_path) as temporary:
        temporary.write_bytes(with_checksum(proto.SerializeToString()))
    return onnx_path


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
