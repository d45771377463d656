"""Models of other programs: rebuilt from their numbers, they compute the same; code that a file names is never run."""

import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.training, pytest.mark.slow]
keras = pytest.importorskip("keras")

import h5py  # noqa: E402

import facemask.__main__ as command  # noqa: E402
from facemask.models.keras_network import load_keras  # noqa: E402
from facemask.models.mask_classifier import MaskClassifier  # noqa: E402
from tests.helpers import ROOT, write_class_folders  # noqa: E402

SIZE = 64
LABELS = ["with_mask", "without_mask"]


def tutorial_network(nested: bool = False, size: int = SIZE, pool=None, hidden: str = "relu", last: str = "softmax"):
    """Build the well-known tutorial's network, with a trained backbone."""
    keras.utils.set_random_seed(1)
    images = keras.Input((size, size, 3))
    if nested:
        base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(size, size, 3))
        features = base(images)
    else:
        base = keras.applications.MobileNetV2(weights=None, include_top=False, input_tensor=images)
        features = base.output
    pool = pool or keras.layers.AveragePooling2D(pool_size=(size // 32, size // 32), name="mean")
    head = keras.layers.Flatten(name="flatten")(pool(features))
    head = keras.layers.Dropout(0.5)(keras.layers.Dense(128, activation=hidden)(head))
    model = keras.Model(images, keras.layers.Dense(2, activation=last)(head))
    base_layers = {layer.name: layer for layer in base.layers}
    for layer in trained_backbone().layers:  # random ones give the same features for all images
        if layer.get_weights():
            base_layers[layer.name].set_weights(layer.get_weights())
    return model


@cache
def trained_backbone():
    return load_keras(ROOT / "mask_detector.keras").backbone


def run(path: Path, output: Path, *more: str, scale: str = "tutorial") -> int:
    arguments = ["import", str(path), "--classes", *LABELS, "--size", str(SIZE), "--scale", scale, "-m", str(output), *more]
    return command.main(arguments)


def images() -> np.ndarray:
    """Return faces, float32 (n, size, size, 3) RGB 0..255."""
    coarse = np.random.default_rng(2).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    return coarse.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)


def save_legacy(model, path: Path) -> None:
    """Write a model as HDF5 under any name, as Keras 2's model.save("x.model", save_format="h5")."""
    model.save(path.with_suffix(".h5"))
    path.with_suffix(".h5").rename(path)


@pytest.mark.parametrize(
    ("name", "nested"), [("old.h5", False), ("old.model", True), ("old.keras", False), ("nested.keras", True)]
)
def test_an_imported_model_computes_the_same(tmp_path, name, nested, capsys):
    model = tutorial_network(nested)
    path, output = tmp_path / name, tmp_path / "mine.keras"
    if path.suffix == ".keras":
        model.save(path)
    else:
        save_legacy(model, path)
    assert run(path, output) == 0
    assert "no mine.int8.onnx was written" in capsys.readouterr().err
    expected = model.predict(keras.applications.mobilenet_v2.preprocess_input(images()), verbose=0)
    assert np.ptp(expected[:, 0]) > 1e-3  # the images differ
    classifier = MaskClassifier.load(output)
    assert classifier.backend == "onnxruntime on cpu" and classifier.info.labels == tuple(LABELS)
    np.testing.assert_allclose(classifier.infer(images().transpose(0, 3, 1, 2)), expected, atol=1e-4)
    np.testing.assert_allclose(load_keras(output).model.predict(images(), verbose=0), expected, atol=1e-4)


def test_other_scaling_and_int8(tmp_path):
    model = tutorial_network()
    model.save(tmp_path / "old.keras")
    write_class_folders(tmp_path / "faces")
    assert run(tmp_path / "old.keras", tmp_path / "m.keras", "-d", str(tmp_path / "faces"), scale="unit") == 0
    assert (tmp_path / "m.int8.onnx").is_file()
    (tmp_path / "m.int8.onnx").unlink()
    classifier = MaskClassifier.load(tmp_path / "m.keras")
    expected = model.predict(images() / 255, verbose=0)
    np.testing.assert_allclose(classifier.infer(images().transpose(0, 3, 1, 2)), expected, atol=1e-4)


def test_the_padding_of_older_versions_is_the_same(tmp_path):
    """Before Keras 2.4, Conv1_pad came before Conv1."""
    model = tutorial_network()
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layers = config["config"]["layers"]
        conv = next(layer for layer in layers if layer["config"]["name"] == "Conv1")
        conv["config"]["padding"] = "valid"
        pad = {"class_name": "ZeroPadding2D", "config": {"name": "Conv1_pad", "padding": [[0, 1], [0, 1]]}}
        layers.insert(layers.index(conv), pad)
        file.attrs["model_config"] = json.dumps(config)
    assert run(tmp_path / "old.h5", tmp_path / "m.keras") == 0
    expected = model.predict(images() / 127.5 - 1, verbose=0)
    np.testing.assert_allclose(load_keras(tmp_path / "m.keras").model.predict(images(), verbose=0), expected, atol=1e-4)


def change_config(path: Path, change) -> None:
    """Apply a function to the configuration in a .keras file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def name_code(config: dict) -> None:
    layer = config["config"]["layers"][-2]
    code = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    layer.update(
        {
            "module": "os",
            "class_name": "Lambda",
            "config": {"name": "evil", "function": code, "arguments": {"command": "touch owned"}},
        }
    )


def rename_first(config: dict) -> None:
    config["config"]["layers"][1]["config"]["strides"] = [1, 1]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: tutorial_network(last="sigmoid").save(path), "its dense layers end with relu, sigmoid: relu and a last softmax are known"),
        (lambda path: tutorial_network(hidden="tanh").save(path), "its dense layers end with tanh, softmax: relu and a last softmax are known"),
        (lambda path: tutorial_network(pool=keras.layers.MaxPooling2D((2, 2), name="pool")).save(path), "its last features, 2 x 2 for --size 64, go into pool (MaxPooling2D), not into their mean"),
        (lambda path: tutorial_network(size=96).save(path), "its last features, 2 x 2 for --size 64, go into mean (AveragePooling2D), not into their mean"),
        (lambda path: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path), "no MobileNetV2 of Keras, whose last layer is called out_relu"),
        (lambda path: (tutorial_network().save(path), change_config(path, name_code)), "its layer evil, Lambda, is not known here"),
        (lambda path: (tutorial_network().save(path), change_config(path, rename_first)), "its layer Conv1 has another strides than MobileNetV2's"),
        (lambda path: path.write_bytes(b"noise"), "not a Keras model's file, or corrupt"),
        (lambda path: path.write_bytes(b"PK\3\4noise"), "not a Keras model's file, or corrupt"),
        (lambda path: (tutorial_network().save(path), change_config(path, lambda config: config.update(config={"layers": [[]]}))), "not a Keras model's file, or corrupt"),
    ],
    ids=["sigmoid", "tanh", "max", "size", "other", "code", "strides", "noise", "zip", "config"],
)  # fmt: skip
def test_what_cannot_be_imported_is_said_in_one_line(tmp_path, capsys, monkeypatch, make, reason):
    monkeypatch.chdir(tmp_path)
    make(Path("old.keras").absolute())
    capsys.readouterr()
    assert run(Path("old.keras"), Path("m.keras")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"error: old.keras: cannot be imported ({reason}); train it again with train_mask_detector.py"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.keras"]


def test_weights_alone_and_folders_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tutorial_network().save_weights("old.weights.h5")
    assert run(Path("old.weights.h5"), Path("m.keras")) == 1
    assert "(it has weights alone, or is of another program; save the whole model)" in capsys.readouterr().err
    Path("old.model").mkdir()
    assert run(Path("old.model"), Path("m.keras")) == 1
    assert "error: old.model: a SavedModel folder, which holds code to run; save it as one file" in capsys.readouterr().err


def test_numbers_that_point_elsewhere_are_refused(tmp_path, capsys):
    tutorial_network().save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        group = file["model_weights/Conv1/Conv1"]
        name = next(iter(group))
        del group[name]
        group[name] = h5py.ExternalLink("/etc/passwd", "/x")
    assert run(tmp_path / "old.h5", tmp_path / "m.keras") == 1
    assert "cannot be imported (its data are elsewhere)" in capsys.readouterr().err
