"""The devices that networks run on: onnxruntime's execution providers, in one table (docs/devices.md)."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from facemask.errors import InputError

Loaded = TypeVar("Loaded")
AUTO = "auto"

logger = logging.getLogger(__name__)


class DeviceError(InputError):
    """A device is not there, or does not run a network."""


@dataclass(frozen=True)
class Device:
    """What runs networks, and what onnxruntime must know of it. Options: https://onnxruntime.ai/docs/execution-providers"""

    name: str
    provider: str  # onnxruntime's name of it
    remedy: str  # how to get it
    options: Mapping[str, str] = field(default_factory=dict)  # of the provider
    threads_option: str = ""  # of the provider: how many threads compute; the CPU takes onnxruntime's own
    is_automatic: bool = False  # "auto" may choose it: it was measured, or its package is installed for it alone
    runs_int8: bool = False  # the file with 8-bit integers, where the processor suits: as exact, and faster
    is_exclusive: bool = False  # one call at a time, without a plan of the memory
    preloads: bool = False  # libraries from pip's packages are loaded first


CPU = Device("cpu", "CPUExecutionProvider", "pip install onnxruntime", is_automatic=True, runs_int8=True)
# In the order in which "auto" prefers them.
DEVICES = (
    Device(
        "cuda", "CUDAExecutionProvider", 'pip uninstall -y onnxruntime; pip install "onnxruntime-gpu[cuda,cudnn]"',
        # EXHAUSTIVE, the default, tries all algorithms at each new size of an image: up to a second. TensorFloat-32 rounds
        # to 10 bits, so that results would differ from the CPU's.
        {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
        is_automatic=True, preloads=True,
    ),
    Device(
        "directml", "DmlExecutionProvider", "on Windows: pip uninstall -y onnxruntime; pip install onnxruntime-directml",
        is_automatic=True, is_exclusive=True,
    ),
    # It takes a second longer to load, and longer for the first image of each size (docs/experiments.md).
    Device(
        "openvino", "OpenVINOExecutionProvider", "pip uninstall -y onnxruntime; pip install onnxruntime-openvino",
        {"device_type": "CPU"}, threads_option="num_of_threads", runs_int8=True,
    ),
    # Each Mac's onnxruntime has it, and others measured it slower than the CPU where sizes vary.
    Device("coreml", "CoreMLExecutionProvider", "it is part of onnxruntime on Macs", {"ModelFormat": "MLProgram"}),
    CPU,
)  # fmt: skip
NAMES = (AUTO, "cpu", *(device.name for device in DEVICES if device is not CPU))


def load_on(name: str, load: Callable[[Device], Loaded]) -> Loaded:
    """Return what `load` returns for the device of that name; for "auto", the best device here that runs the networks.

    If a device that "auto" prefers does not run them, there is one warning. Raises DeviceError if a device asked for by
    name is not there or does not run them, and ValueError if there is no such name.
    """
    found = find_devices(name)
    for device, following in pairwise(found):
        try:
            return load(device)
        except DeviceError as error:
            logger.warning("%s; running on %s", error, following.name)
    return load(found[-1])


def find_devices(name: str) -> list[Device]:
    """Return the devices to try, in this order: those of "auto" that onnxruntime has, or the one of that name.

    Raises DeviceError if onnxruntime lacks the one of that name, and ValueError if there is no such name.
    """
    if name not in NAMES:
        raise ValueError(f"device must be one of {', '.join(NAMES)}, received {name!r}")
    providers = available_providers()
    here = [device for device in DEVICES if device.provider in providers or device is CPU]
    if name == AUTO:
        return [device for device in here if device.is_automatic]
    found = [device for device in here if device.name == name]
    if not found:
        (device,) = (device for device in DEVICES if device.name == name)
        has = ", ".join(other.name for other in here)
        raise DeviceError(f"device {name}: the onnxruntime here does not have it (it has {has}); {device.remedy}")
    return found


def available_providers() -> list[str]:
    """Return the names of the execution providers that onnxruntime has; none where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return []
    return onnxruntime.get_available_providers()


def warn_of_other_library(device: Device, file: str, library: str) -> None:
    """Say that a network does not run on the device, where it is not the CPU, as another library than onnxruntime runs it."""
    if device is not CPU:
        logger.warning("%s: not run on %s, but by %s on the device that it chooses", file, device.name, library)
