"""Run ONNX networks: with onnxruntime where it is installed, else with OpenCV."""

import contextlib
import io
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from facemask.errors import InputError
from facemask.models.devices import CPU, Device, DeviceError
from facemask.models.model_file import ModelFile, read_operators

# The operators of this project's networks: none of them loops or branches.
OPERATORS = {
    "Add", "Clip", "Conv", "ConvTranspose", "DequantizeLinear", "Flatten", "Gemm", "GlobalAveragePool", "Mul",
    "QuantizeLinear", "Relu", "Softmax",
}  # fmt: skip
CHECK = "check its driver and libraries (docs/devices.md), or omit --device"
Run = Callable[[np.ndarray], np.ndarray]  # from the values of a network's one input to those of its one output


def open_onnx(model: ModelFile, threads: int = 0, device: Device = CPU) -> tuple[Run, str]:
    """Load a network with one input and one output; returns the function that runs it, and what runs it, for people.

    The function may be called from several threads at once. With onnxruntime each call computes with `threads` of its
    own (0: one per core); OpenCV runs one call after the other. Raises InputError if the file is corrupt, or has
    operators that no network of this project has; DeviceError if the device does not run it, as the function does later.
    """
    try:
        unknown = sorted(read_operators(model.data) - OPERATORS)
    except ValueError as error:
        raise InputError(f"{model.path}: not an ONNX file, or a part of one ({error}); copy it again") from error
    if unknown:
        raise InputError(f"{model.path}: not a network of this project (it has {unknown[0][:40]!a}); train it again")
    try:
        return open_with_onnxruntime(model, threads, device), f"onnxruntime on {device.name}"
    except ImportError:
        return open_with_opencv(model.path), "cv2.dnn"


def open_with_onnxruntime(model: ModelFile, threads: int = 0, device: Device = CPU) -> Run:
    """Load a network as `open_onnx` does. Raises ImportError where onnxruntime is not installed."""
    if device is not CPU:
        return open_on_device(model, threads, device)
    try:
        return new_session(model, threads, device)
    except ImportError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base below Exception
        raise InputError(f"{model.path}: onnxruntime cannot load it; copy it again") from error


def open_on_device(model: ModelFile, threads: int, device: Device) -> Run:
    """Load a network for another device than the CPU; raises DeviceError if the device does not run it, now or later."""
    import onnxruntime

    calls = threading.Lock() if device.is_exclusive else contextlib.nullcontext()
    if device.preloads and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what is missing
            onnxruntime.preload_dlls()
    try:
        run_network = new_session(model, threads, device)
    except Exception as error:
        raise DeviceError(f"device {device.name}: cannot load {model.path.name} ({reason(error)}); {CHECK}") from error

    def run(images: np.ndarray) -> np.ndarray:
        try:
            with calls:
                return run_network(images)
        except Exception as error:
            raise DeviceError(f"device {device.name}: cannot run {model.path.name} ({reason(error)}); {CHECK}") from error

    return run


def reason(error: Exception) -> str:
    """Return the first line of an error, without what follows 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def new_session(model: ModelFile, threads: int, device: Device) -> Run:
    """Return the function that runs a network; raises whatever onnxruntime does, and RuntimeError if it leaves the device."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # nothing: its errors become ours
    # Idle threads that spin take the cores from the steps between two networks: drawing, decoding, the other network.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = not device.is_exclusive
    own = dict(device.options) | ({device.threads_option: str(threads)} if threads and device.threads_option else {})
    providers = [(device.provider, own), *([CPU.provider] if device is not CPU else [])]  # the CPU runs what the device cannot
    session = onnxruntime.InferenceSession(model.data, options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != device.provider:  # onnxruntime leaves it with no word where a library or driver is missing
        raise RuntimeError(f"{device.provider} does not start")
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


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


def read_with_opencv(path: Path) -> cv2.dnn.Net:
    """Read an ONNX network with OpenCV. Raises cv2.error or SystemError if it cannot.

    OpenCV 5's classic engine loads a network faster than its new one and runs these no slower. OpenCV 5.0 ignores the
    choice of an engine for a network in memory, so that the file is read again.
    """
    engine = (cv2.dnn.ENGINE_CLASSIC,) if hasattr(cv2.dnn, "ENGINE_CLASSIC") else ()
    return cv2.dnn.readNetFromONNX(str(path), *engine)
