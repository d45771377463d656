"""Fine-tune MobileNetV2 to tell masks: any Keras 3 backend, on a CPU or a GPU."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx

from facemask.augment import augment
from facemask.classifier import METADATA_NAME, SHA256_NAME, ModelInfo
from facemask.crops import crop_face
from facemask.dataset import FacePatch
from facemask.errors import InputError
from facemask.export import to_onnx
from facemask.files import atomic_path, sha256

HEAD_RATE = 1e-3  # of Adam, for the head on the frozen backbone
HEAD_EPOCHS = 50
HEAD_BATCH = 256
DROPOUT = 0.3  # before the last layer
FINE_TUNE_RATE = 1e-4  # of Adam, decaying to zero along a cosine; at 5e-4 the frozen BatchNorms let it diverge
PATIENCE = 6  # epochs without a better validation loss before fine-tuning ends


class FaceBatches(keras.utils.PyDataset):
    """Batches of faces, float32 (n, size, size, 3) RGB 0..255, and labels int (n,); augmented anew each epoch if asked.

    Each batch draws from a generator seeded by (seed, epoch, batch), so a run repeats whatever the number of workers.
    """

    def __init__(
        self,
        patches: Sequence[FacePatch],
        labels: np.ndarray,
        info: ModelInfo,
        *,
        batch_size: int,
        augmented: bool,
        seed: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=8)
        self.patches, self.labels, self.info = patches, labels, info
        self.batch_size, self.augmented, self.seed = batch_size, augmented, seed
        self.epoch = 0
        self.order = self._shuffled()

    def __len__(self) -> int:
        return -(-len(self.patches) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[batch * self.batch_size : (batch + 1) * self.batch_size]
        size, margin = self.info.input_size, self.info.margin
        if self.augmented:
            rng = np.random.default_rng((self.seed, self.epoch, batch))
            crops = [augment(self.patches[i], size, margin, rng) for i in chosen]
        else:
            crops = [crop_face(self.patches[i].image, self.patches[i].box, size, margin) for i in chosen]
        return np.stack(crops).astype(np.float32), self.labels[chosen]

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        if not self.augmented:
            return np.arange(len(self.patches))
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self.patches))


@dataclass(frozen=True)
class Network:
    """A classifier and its two parts, which share their layers with it."""

    model: keras.Model  # (n, size, size, 3) RGB 0..255 -> (n, classes) probabilities
    features: keras.Model  # (n, size, size, 3) RGB 0..255 -> (n, 1280)
    head: keras.Model  # (n, 1280) -> (n, classes) probabilities


def build_network(info: ModelInfo, weights: str) -> Network:
    """Build MobileNetV2 with a new head for `info`'s classes, scaling to [-1, 1] inside.

    `weights` is "imagenet" (downloaded by Keras), a `.weights.h5` file of MobileNetV2(include_top=False), or a
    detector `.keras` to go on from, whose head is kept if its classes are the same. Raises InputError if they cannot be
    had or do not fit.
    """
    size = info.input_size
    backbone = _load_backbone(size, "imagenet" if weights == "imagenet" else None)
    pooled = keras.Input((backbone.output.shape[-1],), name="pooled")
    dropped = keras.layers.Dropout(DROPOUT)(pooled)
    dense = keras.layers.Dense(len(info.classes), activation="softmax", dtype="float32", name="probabilities")
    head = keras.Model(pooled, dense(dropped), name="head")
    images = keras.Input((size, size, 3), name="images")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(images)
    # training=False holds for good: BatchNorm keeps its ImageNet statistics also while fine-tuning.
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(scaled, training=False))
    network = Network(
        keras.Model(images, head(features), name="mask_detector"), keras.Model(images, features, name="feature_extractor"), head
    )
    if weights.endswith(".keras"):
        _copy_weights(network, info, weights)
    elif weights != "imagenet":
        try:
            backbone.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{weights}: not the weights of MobileNetV2(include_top=False) ({_first_line(error)}); "
                "give mobilenet_v2_imagenet_no_top.weights.h5 or a detector's .keras"
            ) from error
    return network


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
    source_info = ModelInfo.of_keras(path)
    source = load_keras(path)
    try:
        network.model.get_layer("mobilenet_v2").set_weights(source.get_layer("mobilenet_v2").get_weights())
        if source_info.classes == info.classes:
            network.head.set_weights(source.get_layer("head").get_weights())
    except ValueError as error:
        raise InputError(f"{path}: not a detector of this project ({_first_line(error)}); train it anew") from error


def load_keras(path: str | Path) -> keras.Model:
    """Load a `.keras` file in safe mode: nothing in it is run. Raises InputError if it is missing, broken or unsafe."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be loaded as a Keras model ({_first_line(error)}); train it anew") from error


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
        class_weight=class_weights(labels),
        callbacks=[stop],
        verbose=0,
    )
    return history.history


def fine_tune(
    network: Network,
    train: FaceBatches,
    validation: FaceBatches,
    *,
    epochs: int,
    learning_rate: float = FINE_TUNE_RATE,
    checkpoint: Path,
) -> dict:
    """Train the whole network, BatchNorm frozen, and leave it with the weights of its best epoch; return the history.

    The best weights so far are kept in `checkpoint` (`.weights.h5`) meanwhile; Ctrl-C ends the training with them.
    """
    for layer in network.model.get_layer("mobilenet_v2").layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(1, epochs * len(train)))
    network.model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [
        keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(checkpoint, save_best_only=True, save_weights_only=True),
    ]
    network.model.save_weights(checkpoint)
    try:
        network.model.fit(
            train, validation_data=validation, epochs=epochs, class_weight=class_weights(train.labels), callbacks=callbacks
        )
    except KeyboardInterrupt:
        network.model.load_weights(checkpoint)
    finally:
        checkpoint.unlink(missing_ok=True)
    return network.model.history.history


def class_weights(labels: np.ndarray) -> dict[int, float]:
    """Return a weight per class that goes with 1 / sqrt(its count), 1 for the average face.

    Full balance (1 / count) was tried: with 3 % of the faces in the third class, its noise drowned the other two.
    """
    counts = np.bincount(labels)
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    return dict(enumerate((weights * len(labels) / np.sum(weights * counts)).tolist()))


def save_detector(model: keras.Model, info: ModelInfo, path: str | Path) -> Path:
    """Write `path` (.keras, with `info` inside) and the .onnx beside it; return the latter's path."""
    path = Path(path)
    uncompiled = keras.Model(model.input, model.output, name=model.name)  # without the optimizer's state: a third of the size
    with atomic_path(path) as temporary:
        uncompiled.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(METADATA_NAME, info.to_json())
    return export_onnx(model, info, path)


def export_onnx(model: keras.Model, info: ModelInfo, keras_path: Path) -> Path:
    """Write the `.onnx` beside a `.keras` file: the same network, with `info` and the file's SHA-256 inside."""
    onnx_path = keras_path.with_suffix(".onnx")
    proto = to_onnx(model, {METADATA_NAME: info.to_json(), SHA256_NAME: sha256(keras_path)})
    with atomic_path(onnx_path) as temporary:
        onnx.save(proto, temporary)
    return onnx_path


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
