"""Rebuild a mask classifier that another program trained on Keras' MobileNetV2, from the numbers in its file alone.

The file's configuration is compared with the network that is built here, and no layer, function or module that it names is
ever loaded. Keras 2 and 3 write HDF5 (.h5, .hdf5, or any name, as the tutorial's .model); Keras 3 also writes zip files
(.keras).
"""

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

from facemask.errors import InputError
from facemask.models.keras_network import WEIGHTS_NAME, Network, build_empty, find_unusable_content
from facemask.models.model_file import MAX_MODEL
from facemask.models.model_info import ZIP_ERRORS, ModelInfo

CONFIG_NAME = "config.json"  # in a .keras file
MAX_CONFIG = 1 << 24  # bytes
CORRUPT = "not a Keras model's file, or corrupt"
CONTAINERS = ("Functional", "Model", "Sequential")
SKIPPED = ("InputLayer", "Dropout", "Activation:linear")
# What must be as in the network built here, where both configurations have it.
COMPARED = (
    "strides", "kernel_size", "dilation_rate", "groups", "depth_multiplier", "use_bias", "activation", "epsilon", "center",
    "scale", "padding", "max_value", "negative_slope", "threshold", "data_format",
)  # fmt: skip
# Datasets of a layer in the order of its weights, by kind of layer; in HDF5 by name, in a .keras file by number.
WEIGHTS = {
    "Conv2D": ("kernel", "bias"),
    "DepthwiseConv2D": ("depthwise_kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Dense": ("kernel", "bias"),
}
SNAKE_NAMES = {
    "Conv2D": "conv2d", "DepthwiseConv2D": "depthwise_conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense",
    "Functional": "functional", "Model": "functional", "Sequential": "sequential",
}  # fmt: skip  # of kinds of layers, in a .keras file
ROOTS = ("layers", "_layer_checkpoint_dependencies")  # of the layers of a model, in a .keras file; the latter in Keras 2.12


class UnsupportedModel(ValueError):
    """Why a network cannot be rebuilt here."""


@dataclass(frozen=True)
class ForeignLayer:
    """A layer as a file describes it."""

    kind: str
    name: str
    config: dict
    paths: tuple[str, ...] = ()  # of its group of weights in a .keras file, as Keras' versions name it


@dataclass(frozen=True)
class ForeignModel:
    """The layers of a model in their order, those of models within it included, and its file of weights."""

    layers: list[ForeignLayer]
    weights: bytes  # an HDF5 file
    is_zip: bool
    head: list[ForeignLayer] = field(default_factory=list)


def import_network(path: str | Path, classes: Sequence[str], size: int, scaling: str, margin: float = 0.0) -> Network:
    """Return the network of a Keras model whose images are scaled outside of it as `scaling`, a key of SCALINGS, says.

    `classes` are the labels of its outputs in their order. Raises InputError, with the reason, if it is not a MobileNetV2 with
    mean pooling and dense layers, as the well-known tutorial builds it, or if its file is corrupt.
    """
    path = Path(path)
    try:
        model = _read(path)
        info = _describe(model, classes, size, scaling, margin)
        network = build_empty(info)
        _compare(model, network)
        _copy_weights(model, network)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # the latter of configurations that Keras did not write
        reason = error if isinstance(error, UnsupportedModel) else CORRUPT
        raise InputError(f"{path}: cannot be imported ({reason}); train it again with train_mask_detector.py") from error
    return network


def _read(path: Path) -> ForeignModel:
    """Read a model's file. Raises InputError if it cannot be read, UnsupportedModel if it is not a whole Keras model."""
    if path.is_dir():
        raise InputError(
            f"{path}: a SavedModel folder, which holds code to run; save it as one file where it was made: model.save('model.h5')"
        )
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file; give a Keras model, .keras or .h5")
        if path.stat().st_size > MAX_MODEL:
            raise InputError(f"{path}: {path.stat().st_size / 1e9:.1f} GB are too many for a MobileNetV2; give another")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name") from error
    is_zip = data.startswith(b"PK")
    try:
        config, weights = _read_zip(data) if is_zip else (_read_hdf5_config(data), data)
        layers = _list_layers(json.loads(config))
    except (*ZIP_ERRORS, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UnsupportedModel):
            raise
        raise UnsupportedModel(CORRUPT) from error
    return ForeignModel(layers, weights, is_zip)


def _read_zip(data: bytes) -> tuple[bytes, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        sizes = {part.filename: part.file_size for part in archive.infolist()}
        if sum(sizes.values()) > MAX_MODEL or sizes.get(CONFIG_NAME, 0) > MAX_CONFIG:
            raise UnsupportedModel("its content is too large")
        return archive.read(CONFIG_NAME), archive.read(WEIGHTS_NAME)


def _read_hdf5_config(data: bytes) -> str:
    try:
        with h5py.File(BytesIO(data), "r") as file:
            if "model_config" not in file.attrs:
                raise UnsupportedModel("it has weights alone, or is of another program; save the whole model")
            config = file.attrs["model_config"]
    except UnsupportedModel:
        raise
    except Exception as error:  # h5py's have no common base below it
        raise UnsupportedModel(CORRUPT) from error
    return config.decode() if isinstance(config, bytes) else str(config)


def _list_layers(content: dict, parents: tuple[str, ...] = ("",)) -> list[ForeignLayer]:
    """Return the layers of a model's configuration, and of the models in it, in their order."""
    if content.get("class_name") not in CONTAINERS:
        raise UnsupportedModel(f"a model of the kind {content.get('class_name')}, whose layers cannot be known")
    layers, counts = [], Counter[str]()
    for entry in content["config"]["layers"]:
        kind, config = str(entry["class_name"]), dict(entry["config"])
        snake = SNAKE_NAMES.get(kind, kind)
        name = f"{snake}_{counts[snake]}" if counts[snake] else snake
        counts[snake] += 1
        paths = tuple(f"{parent}{root}/{name}/" for parent in parents for root in ROOTS)
        if kind in CONTAINERS:
            layers += _list_layers({"class_name": kind, "config": config}, paths)
        elif kind not in SKIPPED and f"{kind}:{config.get('activation')}" not in SKIPPED:
            layers.append(ForeignLayer(kind, str(config.get("name", entry.get("name"))), config, paths))
    return layers


def _describe(model: ForeignModel, classes: Sequence[str], size: int, scaling: str, margin: float) -> ModelInfo:
    """Return the metadata of the network; takes the layers after the last one of MobileNetV2 as its head."""
    names = [layer.name for layer in model.layers]
    if "out_relu" not in names:
        raise UnsupportedModel("no MobileNetV2 of Keras, whose last layer is called out_relu")
    last = names.index("out_relu") + 1
    head = model.layers[last:]
    del model.layers[last:]
    pool, dense = head[:1], [layer for layer in head[1:] if layer.kind != "Flatten"]
    side = size // 32
    if not pool or not _is_mean_of_all(pool[0], side):
        what = f"{pool[0].name} ({pool[0].kind})" if pool else "nothing"
        raise UnsupportedModel(f"its last features, {side} x {side} for --size {size}, go into {what}, not into their mean")
    for layer in dense:
        if layer.kind != "Dense" or not layer.config.get("use_bias", True):
            raise UnsupportedModel(f"its layer {layer.name}, {layer.kind}, is not known here")
    activations = [_activation(layer.config) for layer in dense]
    if not dense or activations != ["relu"] * (len(dense) - 1) + ["softmax"]:
        raise UnsupportedModel(f"its dense layers end with {', '.join(activations) or 'none'}: relu and a last softmax are known")
    units = [int(layer.config["units"]) for layer in dense]
    if units[-1] != len(classes):
        raise UnsupportedModel(f"it has {units[-1]} outputs for {len(classes)} --classes")
    model.head.extend(dense)
    try:
        return ModelInfo.from_json(ModelInfo(tuple(classes), size, margin, tuple(units[:-1]), scaling).to_json())
    except ValueError as error:
        raise UnsupportedModel("--classes, --size or its dense layers are out of range") from error


def _is_mean_of_all(layer: ForeignLayer, side: int) -> bool:
    if layer.kind == "GlobalAveragePooling2D":
        return True
    return layer.kind == "AveragePooling2D" and _plain(layer.config.get("pool_size")) in (side, [side, side])


def _activation(config: dict) -> str:
    """Return the name of an activation, which newer files wrap in a dictionary."""
    value = config.get("activation", "linear")
    return str(value.get("config", value) if isinstance(value, dict) else value)


def _plain(value: object) -> object:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _compare(model: ForeignModel, network: Network) -> None:
    """Raise UnsupportedModel unless the layers are those of the backbone that was built here."""
    theirs, padding = [], None
    for layer in model.layers:
        if layer.name == "Conv1_pad":  # before Keras 2.4, in place of Conv1's own padding
            padding = _plain(layer.config.get("padding"))
        else:
            theirs.append(layer)
    ours = [layer for layer in network.backbone.layers if type(layer).__name__ != "InputLayer"]
    if padding is not None:
        is_usual = padding == [[0, 1], [0, 1]] and theirs and theirs[0].config.get("padding") == "valid"
        if not is_usual:
            raise UnsupportedModel("its layer Conv1_pad is not MobileNetV2's")
        theirs[0].config["padding"] = "same"
    for layer, known in zip(theirs, ours, strict=False):
        if (layer.kind, layer.name) != (type(known).__name__, known.name):
            raise UnsupportedModel(f"its layer {layer.name}, {layer.kind}, is not MobileNetV2's {known.name}")
        config = known.get_config()
        different = [key for key in COMPARED if key in layer.config and key in config and not _same(layer, config, key)]
        if different:
            raise UnsupportedModel(f"its layer {layer.name} has another {different[0]} than MobileNetV2's")
    if len(theirs) != len(ours):
        raise UnsupportedModel(f"it has {len(theirs)} layers before its head, MobileNetV2 has {len(ours)}")


def _same(layer: ForeignLayer, config: dict, key: str) -> bool:
    if key == "activation":
        return _activation(layer.config) == _activation(config)
    theirs, ours = _plain(layer.config[key]), _plain(config[key])
    if isinstance(theirs, float | int) and isinstance(ours, float | int):
        return abs(theirs - ours) < 1e-9
    return theirs == ours or None in (theirs, ours)


def _copy_weights(model: ForeignModel, network: Network) -> None:
    """Read the numbers of each layer into the network. Raises UnsupportedModel if they are missing or do not fit."""
    by_name = {layer.name: layer for layer in network.backbone.layers}
    pairs = [(layer, by_name[layer.name]) for layer in model.layers if layer.name in by_name]
    pairs += zip(model.head, [layer for layer in network.head.layers if type(layer).__name__ == "Dense"], strict=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.h5"
        path.write_bytes(model.weights)
        reason = find_unusable_content(path)
        if reason:
            raise UnsupportedModel(reason)
        with h5py.File(path, "r") as file:
            find = _by_path(file) if model.is_zip else _by_names(file)
            for theirs, ours in pairs:
                shapes = [tuple(weight.shape) for weight in ours.get_weights()]
                arrays = []
                for number, (name, shape) in enumerate(zip(WEIGHTS.get(theirs.kind, ()), shapes, strict=False)):
                    dataset = find(theirs, name, number)
                    if dataset is None:
                        raise UnsupportedModel(f"the {name} of its layer {theirs.name} is missing")
                    if dataset.shape != shape:
                        raise UnsupportedModel(
                            f"the {name} of its layer {theirs.name} has the shape {dataset.shape}, not {shape}"
                        )
                    arrays.append(np.asarray(dataset, np.float32))
                if not all(np.isfinite(array).all() for array in arrays):
                    raise UnsupportedModel(f"its layer {theirs.name} has numbers that are not finite")
                if arrays:
                    ours.set_weights(arrays)


def _by_path(file: h5py.File) -> Callable:
    """Return what finds a weight in the HDF5 file of a .keras file, by the path of its layer and its number."""

    def find(layer: ForeignLayer, name: str, number: int):
        found = (file.get(f"{path}vars/{number}") for path in layer.paths)
        return next((dataset for dataset in found if isinstance(dataset, h5py.Dataset)), None)

    return find


def _by_names(file: h5py.File) -> Callable:
    """Return what finds a weight in an HDF5 model, by the names of its layer and its own, wherever the layer's group is."""
    datasets: dict[tuple[str, str], h5py.Dataset] = {}

    def note(path: str, item: object) -> None:
        parts = path.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) > 1:
            datasets[parts[-2], parts[-1].removesuffix(":0")] = item

    root = file.get("model_weights")
    if isinstance(root, h5py.Group):
        root.visititems(note)

    def find(layer: ForeignLayer, name: str, number: int):
        return datasets.get((layer.name, name)) or datasets.get((layer.name, name.removeprefix("depthwise_")))

    return find
