"""Run ONNX networks, on onnxruntime where it is installed, else on OpenCV."""

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from facemask.errors import InputError
from facemask.models.model_file import read_operators

# What this project's networks are made of: none of them loops or branches.
OPERATORS = {
    "Add", "Clip", "Conv", "ConvTranspose", "DequantizeLinear", "Flatten", "Gemm", "GlobalAveragePool", "Mul",
    "QuantizeLinear", "Relu", "Softmax",
}  # fmt: skip
CPU_AVX_512VNNI = 23  # of OpenCV's enum CpuFeatures, which Python does not name
Run = Callable[[np.ndarray], np.ndarray]  # the values of a network's one input to those of its one output


def open_onnx(model: bytes, path: Path, threads: int = 0) -> tuple[Run, str]:
    """Load a network with one input and one output, whose file `path` holds `model`.

    Returns what runs it, and the name of that library.

    What runs it may be called from several threads at once; each call computes with `threads` of its own (0: one a
    core) in onnxruntime, while OpenCV takes one call after the other. Raises InputError if the file is broken, or has
    operators that no network of this project has.
    """
    try:
        unknown = sorted(read_operators(model) - OPERATORS)
    except ValueError as error:
        raise InputError(f"{path}: not an ONNX file, or a part of one ({error}); copy it again") from error
    if unknown:
        raise InputError(f"{path}: not a network of this project (it has {unknown[0][:40]!a}); train it anew")
    try:
        return open_with_onnxruntime(model, path, threads), "onnxruntime"
    except ImportError:
        return open_with_opencv(path), "cv2.dnn"


def read_with_opencv(path: Path) -> cv2.dnn.Net:
    """Read an ONNX network with OpenCV. Raises cv2.error or SystemError if it cannot."""
    # OpenCV 5's classic engine loads a network faster than its new one and runs these no slower. Of a network in memory
    # OpenCV 5.0 does not heed it.
    engine = (cv2.dnn.ENGINE_CLASSIC,) if hasattr(cv2.dnn, "ENGINE_CLASSIC") else ()
    return cv2.dnn.readNetFromONNX(str(path), *engine)


def open_with_onnxruntime(model: bytes, path: Path, threads: int = 0) -> Run:
    """Load a network as `open_onnx` does. Raises ImportError where onnxruntime is not installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # nothing: what it raises is told by us
    # Idle threads that spin take the cores from what comes between two networks: drawing, decoding, the other network.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        name = session.get_inputs()[0].name
    except Exception as error:  # onnxruntime's exceptions have no common base below Exception
        raise InputError(f"{path}: onnxruntime cannot load it; copy it again") from error
    return lambda images: session.run(None, {name: images})[0]


def runs_int8() -> bool:
    """Tell whether networks with 8-bit integers run here as they should: on onnxruntime, on x86 with AVX512-VNNI.

    Where x86 has AVX2 alone, sums of two products are cut to 16 bits, and other processors were not measured:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return cv2.checkHardwareSupport(CPU_AVX_512VNNI)


def open_with_opencv(path: Path) -> Run:
    """Load a network as `open_onnx` does."""
    try:
        network = read_with_opencv(path)
    except (cv2.error, SystemError) as error:
        raise InputError(f"{path}: OpenCV cannot load it; copy it again, or pip install onnxruntime") from error

    lock = threading.Lock()  # between setting the input and copying the output no other thread may

    def run(images: np.ndarray) -> np.ndarray:
        with lock:
            network.setInput(images)
            return network.forward().copy()

    return run
