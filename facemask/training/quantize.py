"""Make a network with 8-bit integers from one with float32."""

import copy
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from facemask.io.outputs import atomic_path
from facemask.models.int8 import SOURCE_NAME, int8_file
from facemask.models.model_file import CHECKSUM_NAME, sha256, with_checksum
from facemask.models.model_info import ModelInfo
from facemask.training.batches import FaceBatches
from facemask.training.crops import Crop

CLASSIFIER_CROPS, CLASSIFIER_BATCH = 512, 8  # faces from which the ranges of the classifier's values are taken
# The first layers in float32 cost no time, and save 0.6 points of balanced accuracy (docs/experiments.md).
CLASSIFIER_FLOAT_LAYERS = ("scale", "Conv1", "expanded_conv", "features", "hidden", "probabilities")
MIN_RANGE = 1e-3  # of the widest channel's: no channel is enlarged by more than 1 / this


class _Inputs(CalibrationDataReader):
    """The inputs one after the other, as onnxruntime's calibration takes them."""

    def __init__(self, name: str, inputs: Sequence[np.ndarray]) -> None:
        self.remaining = iter({name: images} for images in inputs)

    def get_next(self) -> dict | None:
        return next(self.remaining, None)


def write_int8(file: Path, inputs: Sequence[np.ndarray], float_layers: tuple[str, ...]) -> Path:
    """Write the int8 file beside an ONNX file of this project, and return its path; arguments as of `to_int8`."""
    output = int8_file(file)
    model = to_int8(file, inputs, float_layers)
    with atomic_path(output) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))
    return output


def write_int8_classifier(file: Path, crops: Sequence[Crop], info: ModelInfo, seed: int) -> Path:
    """Write the int8 file beside the classifier's ONNX file, and return its path; `crops` are those that it learnt from."""
    chosen = np.random.default_rng(seed).permutation(len(crops))[:CLASSIFIER_CROPS]
    batches = FaceBatches([crops[index] for index in chosen], info, CLASSIFIER_BATCH)
    return write_int8(file, [batches[number][0].transpose(0, 3, 1, 2) for number in range(len(batches))], CLASSIFIER_FLOAT_LAYERS)


def to_int8(file: Path, inputs: Sequence[np.ndarray], float_layers: tuple[str, ...]) -> onnx.ModelProto:
    """Return the network of an ONNX file with 8-bit integers, weights by channel; its metadata are copied.

    `inputs` are values of the network's input, float32 (n, 3, H, W) each, from which the ranges of all values are taken.
    Layers whose names begin with one of `float_layers` stay float32.
    """
    model = onnx.load(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key != CHECKSUM_NAME}
    equalize(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        equalized, prepared, quantized = (Path(folder) / f"{step}.onnx" for step in ("equalized", "prepared", "quantized"))
        onnx.save(model, equalized)
        quant_pre_process(equalized, prepared, skip_symbolic_shape=True)
        logging.disable(logging.INFO)  # onnxruntime's notes on each layer
        quantize_static(
            prepared,
            quantized,
            _Inputs(model.graph.input[0].name, inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if node.name.startswith(float_layers)],
            calibrate_method=CalibrationMethod.MinMax,
        )
        logging.disable(logging.NOTSET)
        model = onnx.load(quantized)
    onnx.helper.set_model_props(model, metadata | {SOURCE_NAME: sha256(file)})
    return model


def equalize(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> None:
    """Scale the channels between two convolutions so that all span ranges alike; the network computes the same.

    Cross-layer equalization (Nagel et al., 2019, arXiv:1906.04721): integers, one scale for all channels, then serve each
    well. Before a depthwise convolution, whose weights have scales of their own, all channels get one range; before
    another, the ranges of a channel and of its weights are made alike.
    """
    consumers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            consumers[name].append(node)
    pairs = []  # a convolution, the values that it hands on, the convolution that alone takes them
    for node in model.graph.node:
        name = node.output[0]
        if [consumer.op_type for consumer in consumers[name]] == ["Relu"]:
            name = consumers[name][0].output[0]
        if node.op_type == "Conv" and [consumer.op_type for consumer in consumers[name]] == ["Conv"]:
            pairs.append((node, name, consumers[name][0]))

    exposed = copy.deepcopy(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for _, name, _ in pairs)
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    maxima = [0.0] * len(pairs)
    for images in inputs:
        values = session.run(None, {model.graph.input[0].name: images})
        maxima = [np.maximum(before, np.abs(now).max(axis=(0, 2, 3))) for before, now in zip(maxima, values, strict=True)]

    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    for (producer, _, consumer), ranges in zip(pairs, maxima, strict=True):
        if not ranges.any():
            continue
        scale = _relative(ranges)
        is_depthwise = weights[consumer.input[1]].shape[1] == 1
        if not is_depthwise:
            scale = np.sqrt(scale / _relative(np.abs(weights[consumer.input[1]]).max(axis=(0, 2, 3))))
        weights[producer.input[1]] /= scale[:, None, None, None]
        weights[producer.input[2]] /= scale
        weights[consumer.input[1]] *= scale[:, None, None, None] if is_depthwise else scale[None, :, None, None]
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))


def _relative(ranges: np.ndarray) -> np.ndarray:
    """Return ranges (n,) as parts of the widest, MIN_RANGE at least."""
    return np.maximum(ranges / ranges.max(), MIN_RANGE)
