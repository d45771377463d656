"""Write a Keras network as ONNX, for onnxruntime and cv2.dnn, from any Keras backend.

Keras' own `model.export(format="onnx")` needs tf2onnx or torch, takes channels-last input, and what it writes crashes
cv2.dnn. A MobileNetV2 and this project's heads have few kinds of layer, so each is written here as its ONNX operator,
BatchNorm folded into the convolution before it.
"""

import zipfile
from pathlib import Path

import keras
import numpy as np
import onnx
from keras.ops import convert_to_numpy
from onnx import TensorProto, helper, numpy_helper

from facemask.io.outputs import atomic_path
from facemask.models.model_file import CHECKSUM_LENGTH, checksum, sha256, with_checksum
from facemask.models.model_info import METADATA_NAME, SHA256_NAME, ModelInfo

OPSET = 13  # read by OpenCV 4.10's importer and by every onnxruntime in use
IR_VERSION = 8
INPUT_NAME = "images"


def to_onnx(model, metadata: dict[str, str], output_name: str = "probabilities") -> onnx.ModelProto:
    """Convert a functional Keras network of the MobileNetV2 family to ONNX.

    The network takes `images`, float32 (n, 3, height, width), any n, with the values that the Keras model takes as
    (n, height, width, 3), and returns its one output as `output_name`, channels first too. Sizes that are variable in the
    Keras model stay variable. `metadata` becomes its metadata_props. Raises ValueError for an unsupported kind of layer,
    activation or padding.
    """
    writer = _GraphWriter()
    writer.rename_output(writer.add_model(model, [INPUT_NAME]), output_name)
    graph = helper.make_graph(
        writer.nodes,
        model.name,
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, _channels_first(model.inputs[0], "height", "width"))],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, _channels_first(model.outputs[0], "rows", "columns"))],
        [numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name) for name, values in writer.weights.items()],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="facemask"
    )
    helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _channels_first(tensor, height_name: str, width_name: str) -> list[int | str]:
    """Return the shape of a Keras tensor, (n, channels) or (n, height, width, channels), for ONNX."""
    if len(tensor.shape) == 2:
        return ["n", tensor.shape[1]]
    _, height, width, channels = tensor.shape
    return ["n", channels, height or height_name, width or width_name]


class _GraphWriter:
    """The nodes and weights of a graph, collected while walking a Keras model's layers in order of execution."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self._paddings: dict[str, list[int]] = {}  # by tensor: the ZeroPadding2D that its convolution applies
        self._transposed: set[str] = set()  # outputs of transposed convolutions, whose kernels are (in, out, h, w)

    def add_model(self, model, inputs: list[str]) -> str:
        """Write a functional model fed with the named tensors; return the name of its output."""
        names = {id(tensor): name for tensor, name in zip(model.inputs, inputs, strict=True)}
        for layer in model.layers:  # Keras lists them in topological order
            if type(layer).__name__ == "InputLayer":
                continue
            node = next(node for node in layer._inbound_nodes if all(id(t) in names for t in node.input_tensors))
            sources = [names[id(tensor)] for tensor in node.input_tensors]
            names[id(node.output_tensors[0])] = self._add_layer(layer, sources)
        return names[id(model.outputs[0])]

    def rename_output(self, old: str, new: str) -> None:
        node = next(node for node in self.nodes if node.output[0] == old)
        node.output[0] = new

    def _add_layer(self, layer, sources: list[str]) -> str:
        kind = type(layer).__name__
        if hasattr(layer, "layers"):
            return self.add_model(layer, sources)
        add = getattr(self, f"_add_{kind}", None)
        if add is None:
            raise ValueError(f"cannot write layer {layer.name!r} as ONNX: its kind {kind} is not known here")
        return add(layer, *sources)

    def _node(self, operator: str, name: str, inputs: list[str], **attributes) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _activate(self, layer, source: str) -> str:
        """Write the activation of a layer on `source`; the result has the name of the layer."""
        activation = layer.activation.__name__
        if activation == "relu":
            return self._node("Relu", layer.name, [source])
        if activation == "softmax" and len(layer.output.shape) == 2:
            return self._node("Softmax", layer.name, [source], axis=1)
        if activation != "linear":
            raise ValueError(f"cannot write layer {layer.name!r} as ONNX: its activation {activation} is not known here")
        return source

    def _weight(self, name: str, values) -> str:
        self.weights[name] = np.asarray(values, np.float32)
        return name

    def _add_Rescaling(self, layer, source: str) -> str:
        scaled = self._node("Mul", f"{layer.name}/mul", [source, self._weight(f"{layer.name}/scale", layer.scale)])
        return self._node("Add", layer.name, [scaled, self._weight(f"{layer.name}/offset", layer.offset)])

    def _add_ZeroPadding2D(self, layer, source: str) -> str:
        (top, bottom), (left, right) = layer.padding
        self._paddings[source] = [top, left, bottom, right]
        return source

    def _add_Conv2D(self, layer, source: str) -> str:
        return self._convolution(layer, source, convert_to_numpy(layer.kernel).transpose(3, 2, 0, 1), group=1)

    def _add_DepthwiseConv2D(self, layer, source: str) -> str:
        kernel = convert_to_numpy(layer.kernel).transpose(2, 3, 0, 1)  # (h, w, channels, 1) -> (channels, 1, h, w)
        return self._convolution(layer, source, kernel, group=kernel.shape[0])

    def _convolution(self, layer, source: str, kernel: np.ndarray, group: int) -> str:
        pads = self._paddings.pop(source, [0, 0, 0, 0])
        if layer.padding == "same":
            pads = _same_padding(layer.input.shape[1:3], kernel.shape[2:], layer.strides)
        bias = convert_to_numpy(layer.bias) if layer.use_bias else np.zeros(kernel.shape[0])
        weights = [self._weight(f"{layer.name}/kernel", kernel), self._weight(f"{layer.name}/bias", bias)]
        output = self._node(
            "Conv",
            layer.name if layer.activation.__name__ == "linear" else f"{layer.name}/conv",
            [source, *weights],
            kernel_shape=kernel.shape[2:],
            strides=layer.strides,
            pads=pads,
            group=group,
        )
        return self._activate(layer, output)

    def _add_Conv2DTranspose(self, layer, source: str) -> str:
        if layer.padding != "valid" or layer.activation.__name__ != "linear":
            raise ValueError(f"cannot write layer {layer.name!r} as ONNX: its padding or activation is not known here")
        kernel = convert_to_numpy(layer.kernel).transpose(3, 2, 0, 1)  # (h, w, out, in) -> (in, out, h, w)
        bias = convert_to_numpy(layer.bias) if layer.use_bias else np.zeros(kernel.shape[1])
        weights = [self._weight(f"{layer.name}/kernel", kernel), self._weight(f"{layer.name}/bias", bias)]
        self._transposed.add(layer.name)
        return self._node("ConvTranspose", layer.name, [source, *weights], kernel_shape=kernel.shape[2:], strides=layer.strides)

    def _add_BatchNormalization(self, layer, source: str) -> str:
        gamma, beta, mean, variance = map(convert_to_numpy, (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance))
        scale = gamma / np.sqrt(variance + layer.epsilon)
        kernel, bias = f"{source}/kernel", f"{source}/bias"
        self.weights[bias] = (self.weights[bias] - mean) * scale + beta
        shape = (1, -1, 1, 1) if source in self._transposed else (-1, 1, 1, 1)
        self.weights[kernel] = self.weights[kernel] * scale.reshape(shape)
        return source

    def _add_ReLU(self, layer, source: str) -> str:
        if layer.max_value is None:
            return self._node("Relu", layer.name, [source])
        limits = [self._weight("relu/min", 0.0), self._weight("relu/max", layer.max_value)]
        return self._node("Clip", layer.name, [source, *limits])

    def _add_Add(self, layer, *sources: str) -> str:
        return self._node("Add", layer.name, list(sources))

    def _add_GlobalAveragePooling2D(self, layer, source: str) -> str:
        if layer.keepdims:
            return self._node("GlobalAveragePool", layer.name, [source])
        pooled = self._node("GlobalAveragePool", f"{layer.name}/pool", [source])
        return self._node("Flatten", layer.name, [pooled], axis=1)

    def _add_Dropout(self, layer, source: str) -> str:
        return source

    def _add_Dense(self, layer, source: str) -> str:
        kernel = self._weight(f"{layer.name}/kernel", convert_to_numpy(layer.kernel))
        bias = self._weight(f"{layer.name}/bias", convert_to_numpy(layer.bias))
        product = self._node("Gemm", f"{layer.name}/gemm", [source, kernel, bias])
        return self._activate(layer, product)


def _same_padding(size, kernel, strides) -> list[int]:
    """Return ONNX pads (top, left, bottom, right) for Keras' padding="same", which puts the odd pixel last."""
    totals = [max((-(-s // stride) - 1) * stride + k - s, 0) for s, k, stride in zip(size, kernel, strides, strict=True)]
    before = [total // 2 for total in totals]
    return before + [total - first for total, first in zip(totals, before, strict=True)]


def save_detector(model: keras.Model, info: ModelInfo, path: str | Path) -> Path:
    """Write `path` (.keras, with `info` inside) and the .onnx beside it; return the path of the .onnx."""
    path = Path(path)
    uncompiled = keras.Model(
        model.input, model.output, name=model.name
    )  # without the state of the optimizer: a third of the size
    with atomic_path(path) as temporary:
        uncompiled.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(METADATA_NAME, info.to_json())
            archive.comment = bytes(CHECKSUM_LENGTH)  # at the very end
        data = temporary.read_bytes()[:-CHECKSUM_LENGTH]
        temporary.write_bytes(data + checksum(data))
    return export_onnx(model, info, path)


def export_onnx(model: keras.Model, info: ModelInfo, keras_path: Path) -> Path:
    """Write the `.onnx` beside a `.keras` file: the same network, with `info` and the SHA-256 of the .keras file inside."""
    onnx_path = keras_path.with_suffix(".onnx")
    proto = to_onnx(model, {METADATA_NAME: info.to_json(), SHA256_NAME: sha256(keras_path)})
    with atomic_path(onnx_path) as temporary:
        temporary.write_bytes(with_checksum(proto.SerializeToString()))
    return onnx_path
