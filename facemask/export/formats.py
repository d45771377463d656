"""The formats, in one table: how a network is written, and how the example reads it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facemask.export.networks import Exported


def write_onnx(network: Exported, folder: Path, inputs: Sequence[np.ndarray]) -> None:
    (folder / f"{network.name}.onnx").write_bytes(network.model.SerializeToString())


def write_openvino(network: Exported, folder: Path, inputs: Sequence[np.ndarray]) -> None:
    import io

    import openvino

    model = openvino.convert_model(io.BytesIO(network.model.SerializeToString()))
    openvino.save_model(model, folder / f"{network.name}.xml", compress_to_fp16=False)


def write_litert(network: Exported, folder: Path, inputs: Sequence[np.ndarray]) -> None:
    from facemask.export.litert import to_litert

    (folder / f"{network.name}.tflite").write_bytes(to_litert(network.model))


def write_litert_int8(network: Exported, folder: Path, inputs: Sequence[np.ndarray]) -> None:
    from facemask.export.litert import to_litert_int8

    (folder / f"{network.name}.tflite").write_bytes(to_litert_int8(network.model, inputs))


@dataclass(frozen=True)
class Format:
    """A format of networks."""

    write: Callable[[Exported, Path, Sequence[np.ndarray]], None]  # into a folder; the inputs are those of calibration
    runtime: str  # the package of PyPI that runs it
    loader: str  # Python: load(name) returns a function from uint8 (1, H, W, 3) RGB to float32, channels last
    inputs: str  # of both networks, for the README
    outputs: str
    is_calibrated: bool = False


ONNX_LOADER = """
def load(name):
    session = onnxruntime.InferenceSession(HERE / f"{name}.onnx")

    def run(images):
        output = session.run(None, {"images": images.transpose(0, 3, 1, 2).astype(np.float32)})[0]
        return np.moveaxis(output, 1, -1)

    return run
"""
OPENVINO_LOADER = """
def load(name):
    model = openvino.compile_model(HERE / f"{name}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images):
        output = model(images.transpose(0, 3, 1, 2).astype(np.float32))[0]
        return np.moveaxis(output, 1, -1)

    return run
"""
LITERT_LOADER = """
def load(name):
    network = Interpreter(str(HERE / f"{name}.tflite"))
    network.allocate_tensors()
    given, taken = network.get_input_details()[0], network.get_output_details()[0]

    def run(images):
        network.set_tensor(given["index"], images.astype(given["dtype"]))
        network.invoke()
        output = network.get_tensor(taken["index"])
        scale, zero = taken["quantization"]  # 0, 0 if it is float32
        return (output.astype(np.float32) - zero) * scale if scale else output

    return run
"""
CHANNELS_FIRST = "float32 (1, 3, size, size)"
CHANNELS_LAST = "float32 (1, size, size, 3)"
FORMATS = {
    "onnx": Format(
        write_onnx, "onnxruntime", "import onnxruntime\n\n" + ONNX_LOADER,
        CHANNELS_FIRST, "float32, channels first: (1, 5, size/4, size/4) and (1, classes)",
    ),
    "openvino": Format(
        write_openvino, "openvino", "import openvino\n\n" + OPENVINO_LOADER,
        CHANNELS_FIRST, "float32, channels first: (1, 5, size/4, size/4) and (1, classes)",
    ),
    "litert": Format(
        write_litert, "ai-edge-litert", "from ai_edge_litert.interpreter import Interpreter\n\n" + LITERT_LOADER,
        CHANNELS_LAST, "float32, channels last: (1, size/4, size/4, 5) and (1, classes)",
    ),
    "tflite-int8": Format(
        write_litert_int8, "ai-edge-litert", "from ai_edge_litert.interpreter import Interpreter\n\n" + LITERT_LOADER,
        "uint8 (1, size, size, 3)",
        "int8, channels last: (1, size/4, size/4, 5) and (1, classes); subtract the tensor's zero point, multiply by its scale",
        is_calibrated=True,
    ),
}  # fmt: skip
