"""The devices of onnxruntime. Where its build has one, the real one runs; the others are faked at onnxruntime's own functions."""

import threading
import time

import cv2
import numpy as np
import pytest

import facemask
from facemask.models import devices
from facemask.models.devices import CPU, DEVICES, NAMES, DeviceError, find_devices
from tests.helpers import EXAMPLES, ROOT

onnxruntime = pytest.importorskip("onnxruntime")
PROVIDERS = {device.name: device.provider for device in DEVICES}
RES10 = ROOT / "face_detector" / "res10_300x300_ssd.onnx"
SESSION = onnxruntime.InferenceSession
# Between devices that compute the same in another order: rounding moves some integers to the next. Faces of 70 to 260 px.
PIXELS, PROBABILITY = 4, 0.02


@pytest.fixture
def people() -> np.ndarray:
    return cv2.imread(str(EXAMPLES / "people.jpg"))


class FakeSession:
    """Computes on the CPU, and says that another device does; records what it was opened with."""

    opened: list["FakeSession"] = []  # noqa: RUF012
    starts = True  # else the device is left out with no word, as onnxruntime does where a driver is missing
    fails = False  # when it runs

    def __init__(self, data, options, providers, enable_fallback):
        self.providers, self.mem_pattern = providers, options.enable_mem_pattern
        self.is_int8 = b"QuantizeLinear" in data
        self.running = self.most = 0
        self.session = SESSION(data, options, providers=[CPU.provider])
        self.get_inputs = self.session.get_inputs
        self.opened.append(self)

    def get_providers(self):
        names = [provider if isinstance(provider, str) else provider[0] for provider in self.providers]
        return names if self.starts else [CPU.provider]

    def run(self, outputs, inputs):
        if self.fails and self.providers[0][0] != CPU.provider:
            raise RuntimeError("out of memory\nat line 3")
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(0.01)
        result = self.session.run(outputs, inputs)
        self.running -= 1
        return result


@pytest.fixture
def fake(monkeypatch):
    """Return a function that gives onnxruntime the devices of these names besides the CPU, and its sessions' class."""

    def use(*names: str) -> type[FakeSession]:
        class Fake(FakeSession):
            opened: list[FakeSession] = []  # noqa: RUF012

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*(PROVIDERS[name] for name in names), CPU.provider])
        monkeypatch.setattr(onnxruntime, "InferenceSession", Fake)
        return Fake

    return use


@pytest.mark.parametrize(
    ("here", "name", "found"),
    [
        ((), "auto", ["cpu"]),
        (("cuda",), "auto", ["cuda", "cpu"]),
        (("directml", "cuda"), "auto", ["cuda", "directml", "cpu"]),
        (("openvino",), "auto", ["cpu"]),
        (("coreml",), "auto", ["cpu"]),
        (("cuda", "openvino"), "openvino", ["openvino"]),
        (("cuda",), "cpu", ["cpu"]),
    ],
)
def test_find_devices(fake, here, name, found):
    fake(*here)
    assert [device.name for device in find_devices(name)] == found


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("auto", "cpu")])
def test_device_that_onnxruntime_lacks_names_the_remedy(fake, name):
    fake()
    with pytest.raises(DeviceError) as error:
        find_devices(name)
    (device,) = (device for device in DEVICES if device.name == name)
    assert str(error.value) == f"device {name}: the onnxruntime here does not have it (it has cpu); {device.remedy}"
    assert "onnxruntime" in device.remedy


def test_device_of_another_name():
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, directml, openvino, coreml, received 'gpu'"):
        facemask.load_detector(device="gpu")


def test_without_onnxruntime_there_is_the_cpu(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert find_devices("auto") == [CPU]
    with pytest.raises(DeviceError, match="it has cpu"):
        find_devices("cuda")


@pytest.mark.parametrize("name", ["cuda", "directml", "openvino", "coreml"])
def test_both_networks_run_on_the_device_with_its_options(fake, people, name):
    session = fake(name)
    detector = facemask.load_detector(device=name, threads=3)
    (device,) = (device for device in DEVICES if device.name == name)
    own = dict(device.options) | ({device.threads_option: "3"} if device.threads_option else {})
    assert [opened.providers for opened in session.opened] == [[(device.provider, own), CPU.provider]] * 2
    assert {opened.mem_pattern for opened in session.opened} == {name != "directml"}
    assert detector.classifier.backend == f"onnxruntime on {name}"
    assert len(detector.detect(people)) == 8


@pytest.mark.parametrize("name", ["cpu", "cuda", "directml", "coreml"])
def test_files_with_8_bit_integers_run_where_the_table_says(fake, monkeypatch, name):
    session = fake(name)
    monkeypatch.setattr("facemask.models.int8.runs_int8", lambda: True)
    facemask.load_detector(device=name)
    assert [opened.is_int8 for opened in session.opened] == [name == "cpu"] * 2


def test_directml_runs_one_call_at_a_time(fake, people):
    session = fake("directml")
    detector = facemask.load_detector(device="directml")
    threads = [threading.Thread(target=detector.detect, args=[people]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {opened.most for opened in session.opened} == {1}


def test_auto_falls_back_with_one_warning(fake, people, caplog):
    session = fake("cuda", "directml")
    session.starts = False  # onnxruntime-gpu without a driver; on the CPU alone
    expected = facemask.load_detector(device="cpu").detect(people)
    session.opened.clear()
    caplog.clear()
    detector = facemask.load_detector()
    assert [opened.providers[0][0] for opened in session.opened] == [
        PROVIDERS[name] for name in ("cuda", "directml", "cpu", "cpu")
    ]
    assert detector.classifier.backend == "onnxruntime on cpu" and detector.detect(people) == expected
    check = "check its driver and libraries (docs/devices.md), or omit --device"
    assert caplog.messages == [
        f"device {name}: cannot load {detector.faces.name.replace('.int8', '')} ({PROVIDERS[name]} does not start); {check}; "
        f"running on {following}"
        for name, following in (("cuda", "directml"), ("directml", "cpu"))
    ]


@pytest.mark.parametrize("broken", ["starts", "runs"])
def test_device_asked_for_by_name_that_fails(fake, broken):
    session = fake("cuda")
    session.starts, session.fails = broken != "starts", broken == "runs"
    with pytest.raises(DeviceError) as error:
        facemask.load_detector(device="cuda")
    why = "load masked_faces_ssd.onnx (CUDAExecutionProvider does not start)"
    why = "run masked_faces_ssd.onnx (out of memory)" if broken == "runs" else why
    assert str(error.value) == (f"device cuda: cannot {why}; check its driver and libraries (docs/devices.md), or omit --device")


def test_device_that_fails_later_is_named(fake, people):
    session = fake("cuda")
    detector = facemask.load_detector(device="cuda")
    session.fails = True
    with pytest.raises(DeviceError, match=r"device cuda: cannot run masked_faces_ssd.onnx \(out of memory\)"):
        detector.detect(people)
    with pytest.raises(DeviceError, match=r"device cuda: cannot run mask_detector.onnx \(out of memory\)"):
        detector.classifier.classify(people, [(65, 55, 236, 262)])


def test_network_of_another_library_says_that_it_is_not_on_the_device(fake, caplog):
    fake("cuda")
    facemask.load_detector(face_detector=RES10, device="cuda")
    assert caplog.messages == ["res10_300x300_ssd.onnx: not run on cuda, but by OpenCV on the device that it chooses"]


def differences(detections, expected) -> tuple[int, float]:
    """Return the maximum difference of the boxes, px, and of the probabilities; labels and number are the same."""
    assert [face.label for face in detections] == [face.label for face in expected]
    boxes = [np.subtract(face.box, other.box) for face, other in zip(detections, expected, strict=True)]
    probabilities = [
        abs(face.probabilities[label] - other.probabilities[label])
        for face, other in zip(detections, expected, strict=True)
        for label in face.probabilities
    ]
    return int(np.abs(boxes).max()), max(probabilities)


@pytest.mark.parametrize("name", [device.name for device in DEVICES if device is not CPU])
@pytest.mark.parametrize("image", ["people.jpg", "astronaut.jpg", "obama_mask.jpg"])
def test_device_finds_what_the_cpu_finds(name, image):
    """With the same files: `make test-openvino` runs it with OpenVINO's build."""
    if PROVIDERS[name] not in devices.available_providers():
        pytest.skip(f"this build of onnxruntime does not have {name}")
    photo = facemask.read_image(EXAMPLES / image)
    results = []
    for device in (name, "cpu"):
        faces = facemask.load_detector(device=device).detect(photo)
        results.append(sorted(faces, key=lambda face: face.box))
    pixels, probability = differences(*results)
    assert pixels <= PIXELS and probability <= PROBABILITY
