"""Convert this project's ONNX networks to LiteRT (TensorFlow Lite): float32, or all with 8-bit integers.

The few operators that these networks have are written as TensorFlow's, channels last; TensorFlow's own converter does the rest.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

# The face detector's summary of the whole image: at most 0.008, added to values whose step in 8 bits is 0.023, so that it is
# nothing there; and XNNPACK, which runs LiteRT on most processors, refuses sums of scales that are so far apart.
NOTHING_IN_INT8 = frozenset({"context_add"})


def to_litert(model: onnx.ModelProto) -> bytes:
    """Return the network as a .tflite file: float32 (1, H, W, 3) -> float32, channels last too."""
    return _converter(model).convert()


def to_litert_int8(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> bytes:
    """Return the network as a .tflite file with 8-bit integers alone, as Edge TPUs need it.

    It takes uint8 (1, H, W, 3) and returns int8 with one scale and zero point. The ranges of all values are those of `inputs`,
    float32 (1, H, W, 3) each. Sums of NOTHING_IN_INT8 are their first summand.
    """
    converter = _converter(model, NOTHING_IN_INT8)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images] for images in inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.int8
    return converter.convert()


def _converter(model: onnx.ModelProto, skipped: frozenset[str] = frozenset()) -> tf.lite.TFLiteConverter:
    _, channels, height, width = (dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim)
    module = tf.Module()
    module.run = tf.function(
        lambda images: _run(model.graph, images, skipped),
        input_signature=[tf.TensorSpec((1, height, width, channels), name="images")],
    )
    return tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)


def _run(graph: onnx.GraphProto, images: tf.Tensor, skipped: frozenset[str]) -> tf.Tensor:
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values = {graph.input[0].name: images}
    for node in graph.node:
        options = {option.name: onnx.helper.get_attribute_value(option) for option in node.attribute}
        if node.op_type not in OPERATORS:
            raise ValueError(f"operator {node.op_type} is not known here")
        sources = [values[name] if name in values else weights[name] for name in node.input]
        values[node.output[0]] = sources[0] if node.name in skipped else OPERATORS[node.op_type](options, *sources)
    return values[graph.output[0].name]


def _convolve(options: dict, x: tf.Tensor, kernel: np.ndarray, bias: np.ndarray) -> tf.Tensor:
    top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
    if any((top, left, bottom, right)):
        x = tf.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
    strides = (1, *options.get("strides", (1, 1)), 1)
    if options.get("group", 1) > 1:  # depthwise: one kernel per channel
        y = tf.nn.depthwise_conv2d(x, kernel.transpose(2, 3, 0, 1), strides, "VALID")
    else:
        y = tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), strides, "VALID")
    return tf.nn.bias_add(y, bias)


def _convolve_transposed(options: dict, x: tf.Tensor, kernel: np.ndarray, bias: np.ndarray) -> tf.Tensor:
    down, right = options["strides"]  # the kernel's size too, so that nothing overlaps
    shape = (1, x.shape[1] * down, x.shape[2] * right, kernel.shape[1])
    y = tf.nn.conv2d_transpose(x, kernel.transpose(2, 3, 1, 0), shape, (1, down, right, 1), "VALID")
    return tf.nn.bias_add(y, bias)


def _scale(options: dict, x: tf.Tensor, y: np.ndarray) -> np.ndarray:
    return y.reshape(1, 1, 1, -1) if np.ndim(y) > 1 else y


OPERATORS: dict[str, Callable[..., tf.Tensor]] = {
    "Add": lambda options, x, y: x + (_scale(options, x, y) if isinstance(y, np.ndarray) else y),
    "Mul": lambda options, x, y: x * (_scale(options, x, y) if isinstance(y, np.ndarray) else y),
    "Clip": lambda options, x, low, high: tf.nn.relu6(x) if (low, high) == (0, 6) else tf.clip_by_value(x, low, high),
    "Conv": _convolve,
    "ConvTranspose": _convolve_transposed,
    "Flatten": lambda options, x: tf.reshape(x, (1, -1)),
    "Gemm": lambda options, x, kernel, bias: tf.nn.bias_add(tf.matmul(x, kernel), bias),
    "GlobalAveragePool": lambda options, x: tf.reduce_mean(x, (1, 2), keepdims=True),
    "Relu": lambda options, x: tf.nn.relu(x),
    "Softmax": lambda options, x: tf.nn.softmax(x),
}
