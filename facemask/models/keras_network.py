"""Build the mask classifier's network with Keras, and load its weights."""

import warnings
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import keras

from facemask.errors import InputError
from facemask.models.model_file import MAX_MODEL, ModelFile, as_model_file
from facemask.models.model_info import NOT_OURS, SCALINGS, ZIP_ERRORS, ModelInfo

DROPOUT = 0.3  # before the last layer
WEIGHTS_NAME = "model.weights.h5"  # in a .keras file (a zip)


@dataclass(frozen=True)
class Network:
    """A classifier and its two parts, which share its layers."""

    info: ModelInfo
    model: keras.Model  # (n, size, size, 3) RGB 0..255 -> (n, classes) probabilities
    features: keras.Model  # (n, size, size, 3) RGB 0..255 -> (n, 1280)
    head: keras.Model  # (n, 1280) -> (n, classes) probabilities
    backbone: keras.Model  # MobileNetV2 without its top: (n, size, size, 3) scaled -> (n, rows, columns, 1280)


def build_network(info: ModelInfo, weights: str) -> Network:
    """Build MobileNetV2 with a new head for `info`'s classes, scaling to [-1, 1] inside.

    `weights` is "imagenet" (downloaded by Keras), a `.weights.h5` file of MobileNetV2(include_top=False), or a
    detector `.keras` to continue from, whose head is kept for the classes that both have. Raises InputError if they cannot
    be read or do not fit.
    """
    backbone = _load_backbone(info.input_size, "imagenet" if weights == "imagenet" else None)
    network = _build_on(backbone, info)
    if weights.endswith(".keras"):
        _copy_weights(network, info, weights)
    elif weights != "imagenet":
        remedy = "give mobilenet_v2_imagenet_no_top.weights.h5 or a detector's .keras"
        _load_weights(backbone, Path(weights), weights, "MobileNetV2(include_top=False)'s weights", remedy)
    return network


def build_empty(info: ModelInfo) -> Network:
    """Build the network with random weights."""
    return _build_on(_load_backbone(info.input_size, None), info)


def _build_on(backbone: keras.Model, info: ModelInfo) -> Network:
    pooled = keras.Input((backbone.output.shape[-1],), name="pooled")
    hidden = pooled
    for number, units in enumerate(info.hidden, 1):
        hidden = keras.layers.Dense(units, activation="relu", name=f"hidden_{number}")(hidden)
    dropped = keras.layers.Dropout(DROPOUT)(hidden)
    dense = keras.layers.Dense(len(info.classes), activation="softmax", dtype="float32", name="probabilities")
    head = keras.Model(pooled, dense(dropped), name="head")
    images = keras.Input(backbone.input.shape[1:], name="images")
    scale, offset = SCALINGS[info.scaling]
    scaled = keras.layers.Rescaling(scale, offset=offset, name="scale")(images)
    # training=False is permanent: BatchNorm keeps its ImageNet statistics also while fine-tuning.
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(scaled, training=False))
    model = keras.Model(images, head(features), name="mask_detector")
    return Network(info, model, keras.Model(images, features, name="feature_extractor"), head, backbone)


def _load_backbone(size: int, weights: str | None) -> keras.Model:
    arguments = {"input_shape": (size, size, 3), "include_top": False, "name": "mobilenet_v2"}
    try:
        return keras.applications.MobileNetV2(weights=weights, **arguments)
    except Exception as error:  # of urllib, socket or Keras: each means no download
        if weights is None:
            raise
        raise InputError(
            f"--weights imagenet: cannot be downloaded ({_first_line(error)}); give a file: "
            "--weights mobilenet_v2_imagenet_no_top.weights.h5, or a detector's .keras"
        ) from error


def _copy_weights(network: Network, info: ModelInfo, path: str) -> None:
    source = load_keras(path)
    if source.info.scaling != info.scaling:
        raise InputError(f"{path}: takes images of another scaling than training gives; start from another model")
    network.model.get_layer("mobilenet_v2").set_weights(source.model.get_layer("mobilenet_v2").get_weights())
    if source.info.hidden:
        return
    head = network.head.get_weights()  # kernel (1280, classes), bias (classes,)
    for index, name in enumerate(info.classes):
        if name in source.info.classes:
            for array, theirs in zip(head, source.head.get_weights(), strict=True):
                array[..., index] = theirs[..., source.info.classes.index(name)]
    network.head.set_weights(head)


def load_keras(model: ModelFile | str | Path) -> Network:
    """Load a `.keras` file of `save_detector`.

    Only the weights are read from it: the network is built here, so that no layer, function or module that the file may
    name is ever run. Raises InputError if it is missing, corrupt or of another network.
    """
    model = as_model_file(model)
    info = ModelInfo.of_keras(model)
    network = build_empty(info)
    with TemporaryDirectory() as folder:
        weights = Path(folder) / WEIGHTS_NAME
        try:
            with zipfile.ZipFile(BytesIO(model.data)) as archive:
                weights.write_bytes(archive.read(WEIGHTS_NAME))
        except ZIP_ERRORS as error:
            raise InputError(f"{model.path}: {NOT_OURS}") from error
        _load_weights(network.model, weights, model.path, "a model written by train_mask_detector.py", "train it again")
    return network


def _load_weights(model: keras.Model, file: Path, name: str | Path, expected: str, remedy: str) -> None:
    """Read the model's weights from an HDF5 file. Raises InputError, calling it `name`, if they do not fit."""
    reason = find_unusable_content(file)
    if not reason:
        try:
            with warnings.catch_warnings(action="ignore"):  # Keras warns hundreds of times before it raises
                model.load_weights(file)
            return
        except Exception:  # Keras' and h5py's have no common base below it
            reason = "of another network"
    raise InputError(f"{name}: not {expected} ({reason}); {remedy}")


def find_unusable_content(path: Path) -> str:
    """Return why an HDF5 file's content cannot be weights: data elsewhere, not numbers, too large; "" if it can."""
    size = 0

    def check(name: str, link: object) -> str | None:
        nonlocal size
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if item is None or (isinstance(item, h5py.Dataset) and (item.is_virtual or item.external)):
            return "its data are elsewhere"
        if isinstance(item, h5py.Dataset):
            size += item.nbytes
            if item.dtype.kind not in "fiub":
                return "it contains more than numbers"
        return "it is too large" if size > MAX_MODEL else None

    try:
        with h5py.File(path, "r") as file:
            return file.visititems_links(check) or ""
    except Exception:  # as above
        return "not an HDF5 file, or corrupt"


def in_mixed_precision(network: Network, info: ModelInfo) -> Network:
    """Return a copy of the network that computes in float16."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        twin = _build_on(_load_backbone(info.input_size, None), info)
    finally:
        keras.config.set_dtype_policy(policy)
    twin.model.set_weights(network.model.get_weights())
    return twin


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
