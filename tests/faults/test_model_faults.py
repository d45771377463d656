"""The table "Models" of docs/errors.md, row by row."""

import json
import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from facemask.models.model_file import CHECKSUM_LENGTH, MAX_MODEL, checksum, with_checksum
from facemask.models.model_info import METADATA_NAME, ModelInfo
from tests.faults.fault_table import ASTRONAUT, MODEL, ONNX, FaultTable, Run, assert_absent, needs_linux, on_keras, write

pytestmark = needs_linux
TABLE = FaultTable("Models")


def model(name: str, data: bytes) -> Run:
    return Run(["-i", str(ASTRONAUT), "-m", write(name, data)])


@TABLE.case("missing model")
def missing_model(folder):
    return Run(["-i", str(ASTRONAUT), "-m", "m.onnx"])


@TABLE.case("cut off at any tenth of its length, random bytes, empty, one bit changed")
def broken_model(folder):
    whole = ONNX.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 4
    broken = [whole[: len(whole) * tenth // 10] for tenth in range(10)]
    return [model("m.onnx", data) for data in (*broken, np.random.default_rng(0).bytes(9999), bytes(flipped), whole + b"\0")]


@TABLE.case("the same of a .keras")
def broken_keras(folder):
    whole = MODEL.read_bytes()
    return [model("m.keras", data) for data in (b"", b"PK", whole[:5000], whole[:-1], whole[5000:])]


def network(build: Callable, info: ModelInfo | None, inputs: tuple = ("n", 3, 32, 32), outputs: tuple = ("n", 2)) -> bytes:
    """A small ONNX network, whose checksum is right."""
    from onnx import TensorProto, helper

    nodes, weights = build(helper)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "small", [value("x", TensorProto.FLOAT, inputs)], [value("y", TensorProto.FLOAT, outputs)], weights
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if info:
        helper.set_model_props(proto, {METADATA_NAME: info.to_json()})
    return with_checksum(proto.SerializeToString())


def mean_of_pixels(outputs: int, bias: float = 0.0) -> Callable:
    """Build a network that gives this number of outputs, all the same."""

    def build(helper) -> tuple[list, list]:
        from onnx import numpy_helper

        weights = {"w": np.zeros((3, outputs)), "b": np.full(outputs, bias)}
        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
        ]
        return nodes, [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]

    return build


TWO = ModelInfo(("a", "b"), 32, 0.0)


@TABLE.case("a network without this project's metadata")
def no_metadata(folder):
    return [
        model("m.onnx", network(mean_of_pixels(2, 0.5), None)),
        model("m.onnx", ONNX.with_name("face_detector").joinpath("masked_faces_ssd.onnx").read_bytes()),
    ]


@TABLE.case("metadata with a wrong number of classes")
def lying_classes(folder):
    return model("m.onnx", network(mean_of_pixels(5, 0.2), TWO, outputs=("n", 5)))


@TABLE.case("metadata that cannot be used: a class twice, a size of -1 or 10^9, not JSON")
def odd_metadata(folder):
    odd = [
        ModelInfo(("a", "a"), 32, 0.0),
        ModelInfo(("a",), 32, 0.0),
        ModelInfo(("a", "b\n"), 32, 0.0),
        ModelInfo(("a", "b"), -1, 0.0),
        ModelInfo(("a", "b"), 10**9, 0.0),
        ModelInfo(("a", "b"), 32, float("nan")),
    ]
    texts = [info.to_json() for info in odd] + ["", "[]", "{}", '{"classes": 3}']

    class Text:
        def __init__(self, text: str) -> None:
            self.to_json = lambda: text

    return [model("m.onnx", network(mean_of_pixels(2, 0.5), Text(text))) for text in texts]


@TABLE.case("a network for images of another shape")
def other_shape(folder):
    def build(helper) -> tuple[list, list]:
        from onnx import numpy_helper

        weights = {"w": np.zeros((3 * 7 * 7, 2)), "b": np.full(2, 0.5)}
        nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"])]
        return nodes, [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]

    return model("m.onnx", network(build, TWO, inputs=("n", 3, 7, 7)))


@TABLE.case("a network whose outputs are not probabilities, or NaN")
def no_probabilities(folder):
    return [model("m.onnx", network(mean_of_pixels(2, value), TWO)) for value in (3.0, float("nan"))]


@TABLE.case("a network whose weights are in another file")
def external_weights(folder):
    pytest.importorskip("onnxruntime")

    def build(helper) -> tuple[list, list]:
        from onnx import TensorProto

        nodes, weights = mean_of_pixels(2, 0.5)(helper)
        weights[0].ClearField("raw_data")
        weights[0].data_location = TensorProto.EXTERNAL
        entry = weights[0].external_data.add()
        entry.key, entry.value = "location", "secret"
        return nodes, weights

    write("secret", bytes(24))
    return model("m.onnx", network(build, TWO))


def without_driver(monkeypatch, *arguments: str) -> Run:
    """Run with a build of onnxruntime that has CUDA, on a machine that has not."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession

    def on_the_cpu(data, options, providers, enable_fallback):
        return session(data, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    return Run(["-i", str(ASTRONAUT), *arguments])


@TABLE.case("`--device cuda` (and others) where this build of onnxruntime does not have it")
def no_provider(folder, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    return Run(["-i", str(ASTRONAUT), "--device", "cuda"])


@TABLE.case("`--device cuda` where its driver or libraries are missing")
def no_driver(folder, monkeypatch):
    return without_driver(monkeypatch, "--device", "cuda")


@TABLE.case("the same with `--device auto`, the default: the next device runs the networks")
def no_driver_for_auto(folder, monkeypatch):
    return without_driver(monkeypatch)


def keras_file(parts: dict[str, bytes], info: ModelInfo = TWO) -> bytes:
    """A .keras file with its checksum, as anybody can make one."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
        archive.writestr(METADATA_NAME, info.to_json())
        archive.comment = bytes(CHECKSUM_LENGTH)
    data = buffer.getvalue()[:-CHECKSUM_LENGTH]
    return data + checksum(data)


@TABLE.case("a zip bomb: a .keras whose weights take 300 MB")
def zip_bomb(folder):
    return model("m.keras", keras_file({"model.weights.h5": bytes(MAX_MODEL + 1)}))


def with_keras(data: bytes) -> Run:
    from facemask.__main__ import main

    return Run([write("m.keras", data)], script=main)


@TABLE.case("a .keras whose configuration names code: a Lambda, a custom object; only its numbers are read")
@on_keras
def code_in_keras(folder):
    keras = pytest.importorskip("keras")
    lambda_model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: Path("ran").touch() or x)])
    with zipfile.ZipFile(MODEL) as archive:
        weights = archive.read("model.weights.h5")
        info = ModelInfo.from_json(archive.read(METADATA_NAME))
    Path("ran").unlink()  # Keras called it to learn its output's shape
    custom = {"module": "os", "class_name": "system", "config": {"command": "touch ran"}, "registered_name": "system"}

    def check() -> None:
        assert not Path("ran").exists() and Path("m.onnx").exists()

    runs = []
    for config in (lambda_model.to_json(), json.dumps(custom)):
        data = keras_file({"config.json": config.encode(), "metadata.json": b"{}", "model.weights.h5": weights}, info)
        runs.append(Run(with_keras(data).arguments, script=with_keras(data).script, after=check))
    return runs


@TABLE.case("a .keras of another network")
@on_keras
def other_keras(folder):
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save_weights("other.weights.h5")
    return with_keras(keras_file({"model.weights.h5": Path("other.weights.h5").read_bytes()}))


def weights_file(fill: Callable) -> Run:
    """Train from an HDF5 file of weights that `fill` makes."""
    import h5py

    import train_mask_detector

    with h5py.File("w.weights.h5", "w") as file:
        fill(file)
    for label in ("a", "b"):
        write(f"data/{label}/a.jpg", ASTRONAUT.read_bytes())
    return Run(["-d", "data", "-m", "m.keras", "--weights", "w.weights.h5"], script=train_mask_detector.main)


@TABLE.case("HDF5 weights with pickled objects in them: they are not unpickled")
@on_keras
def pickled(folder):
    import pickle

    np_void = pytest.importorskip("numpy").void

    class Evil:
        def __reduce__(self):
            return os.system, ("touch ran",)

    def fill(file) -> None:
        file["layers/conv1/vars/0"] = np_void(pickle.dumps(Evil()))

    run = weights_file(fill)
    return Run(run.arguments, script=run.script, after=lambda: assert_absent("ran"))


@TABLE.case("HDF5 weights that point to another file")
@on_keras
def external_hdf5(folder):
    import h5py

    def fill(file) -> None:
        file["layers/conv1/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")

    return weights_file(fill)


@TABLE.case("HDF5 weights that claim terabytes")
@on_keras
def huge_hdf5(folder):
    return weights_file(lambda file: file.create_dataset("layers/conv1/vars/0", (10**6, 10**6), chunks=True, fillvalue=1.0))


@TABLE.case("HDF5 weights that are cut off, or noise")
@on_keras
def broken_hdf5(folder):
    run = weights_file(lambda file: None)
    whole = Path("w.weights.h5").read_bytes()
    Path("w.weights.h5").write_bytes(whole[: len(whole) // 2])
    return run


def importing(name: str) -> Run:
    """Import a model of another program."""
    import facemask.__main__

    arguments = ["import", name, "--classes", "a", "b", "--size", "224", "--scale", "tutorial", "-m", "m.keras"]
    return Run(arguments, script=facemask.__main__.main, after=lambda: assert_absent("m.keras"))


@TABLE.case("a model of another program, for `python -m facemask import`, that is noise or cut off")
@on_keras
def import_noise(folder):
    return [importing(write("old.h5", data)) for data in (b"noise", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"")]


@TABLE.case("a SavedModel folder")
@on_keras
def import_folder(folder):
    write("old.model/saved_model.pb", b"code")
    return importing("old.model")


def foreign_keras(config: dict) -> Run:
    with zipfile.ZipFile("old.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")
    return importing("old.keras")


@TABLE.case("a Keras model that is no MobileNetV2")
@on_keras
def import_other(folder):
    return foreign_keras(
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"name": "dense"}}]}}
    )


@TABLE.case("a Keras model whose configuration is not a model's: a Lambda in its place; nothing is run")
@on_keras
def import_lambda(folder):
    code = {"class_name": "function", "config": "system", "module": "os", "arguments": {"command": "touch owned"}}
    run = foreign_keras({"class_name": "Lambda", "config": {"function": code, "layers": []}})
    return Run(run.arguments, script=run.script, after=lambda: assert_absent("owned"))


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
