import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

pytestmark = pytest.mark.training
keras = pytest.importorskip("keras")

from sklearn.metrics import log_loss  # noqa: E402

import train_mask_detector  # noqa: E402
from facemask.__main__ import main as export_main  # noqa: E402
from facemask.errors import InputError  # noqa: E402
from facemask.models import keras_network  # noqa: E402
from facemask.models.keras_network import build_network, load_keras  # noqa: E402
from facemask.models.mask_classifier import MaskClassifier  # noqa: E402
from facemask.models.model_file import ModelFile  # noqa: E402
from facemask.models.model_info import ModelInfo  # noqa: E402
from facemask.training.batches import AugmentedBatches, FaceBatches  # noqa: E402
from facemask.training.checkpoint import can_resume, read_history, start_checkpoint  # noqa: E402
from facemask.training.crops import Crop, FacePatch  # noqa: E402
from facemask.training.fit import calibrate, fine_tune, interpolate, loss_among, train_head  # noqa: E402
from facemask.training.model_name import default_model  # noqa: E402
from facemask.training.onnx_export import to_onnx  # noqa: E402
from facemask.training.report import kept_classes  # noqa: E402
from tests.helpers import CORRUPT, EXAMPLES, ROOT, write_class_folders  # noqa: E402

MODEL = ROOT / "mask_detector.keras"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    write_class_folders(folder)
    return folder


@pytest.mark.slow
def test_train_then_detect(dataset, tmp_path, capsys):
    folder = tmp_path / "new" / "one"  # which is made
    model, plot = folder / "mine.keras", folder / "plot.png"
    arguments = ["-d", str(dataset), "-m", str(model), "-p", str(plot), "--weights", str(MODEL), "--size", "96", "-e", "1"]
    assert train_mask_detector.main(arguments) == 0
    out = capsys.readouterr().out
    assert "no group is in two splits" in out and "Confusion matrix" in out
    assert re.search(rf"^  {dataset}: accuracy [01]\.\d+ on \d+ faces, [01]\.\d+ before this training$", out, re.M)
    names = ["mine.int8.onnx", "mine.keras", "mine.onnx", "plot.png"]  # and no checkpoint
    assert sorted(path.name for path in folder.iterdir()) == names
    assert cv2.imread(str(plot)).shape[1] > 1000

    file = ModelFile.read(model)
    info = ModelInfo.of_keras(file)
    assert info == ModelInfo(ModelInfo.of_keras(ModelFile.read(MODEL)).classes, 96, 0.0)  # those without faces too
    (folder / "mine.int8.onnx").unlink()  # its probabilities differ in the second digit
    classifier = MaskClassifier.load(model)
    assert classifier.backend == "onnxruntime on cpu"
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    boxes = [(65, 55, 236, 262), (370, 380, 538, 551), (87, 434, 213, 591), (378, 44, 515, 249)]
    from_keras = MaskClassifier._load_keras(file, info).classify(image, boxes)
    np.testing.assert_allclose(classifier.classify(image, boxes), from_keras, atol=1e-4)


@pytest.mark.slow
def test_interpolate_nothing_of_the_fine_tuning(dataset, tmp_path):
    model = tmp_path / "mine.keras"
    arguments = ["-d", str(dataset), "-m", str(model), "-p", str(tmp_path / "plot.png"), "--size", "96", "-e", "1"]
    assert train_mask_detector.main([*arguments, "--weights", str(MODEL), "--interpolate", "0"]) == 0
    before, after = (load_keras(path).model.get_layer("mobilenet_v2").get_weights() for path in (MODEL, model))
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


def test_interpolate_between():
    before, after = [np.zeros(2), np.ones((2, 1))], [np.ones(2), np.full((2, 1), 3.0)]
    mixed = interpolate(before, after, 0.25)
    np.testing.assert_allclose(mixed[0], [0.25, 0.25])
    np.testing.assert_allclose(mixed[1], [[1.5], [1.5]])


def test_head_is_kept_for_the_classes_that_both_have():
    source = load_keras(MODEL)
    network = build_network(ModelInfo(("another", *source.info.classes), 128, 0.0), str(MODEL))
    for theirs, ours in zip(source.head.get_weights(), network.head.get_weights(), strict=True):
        np.testing.assert_array_equal(ours[..., 1:], theirs)


def test_a_class_without_faces_is_not_unlearnt():
    info = ModelInfo(("a", "b", "c"), 96, 0.0)
    network = build_network(info, str(MODEL))
    rng = np.random.default_rng(0)
    features, labels = rng.normal(0, 1, (200, 1280)).astype(np.float32), rng.choice([0, 2], 200)
    before = network.head.get_weights()
    train_head(network, features, labels, (features, labels), seed=0)
    for old, new in zip(before, network.head.get_weights(), strict=True):
        change = np.abs(new - old).reshape(-1, 3).max(axis=0)
        assert change[1] < 1e-3 < 10 * change[1] + 1e-3 < min(change[[0, 2]])  # of rounding, which Adam enlarges
    true, predicted = np.array([0, 2]), np.array([[0.2, 0.6, 0.2], [0.1, 0.1, 0.8]], np.float32)
    loss = keras.ops.convert_to_numpy(loss_among(np.array([True, False, True]))(true, predicted))
    np.testing.assert_allclose(loss, -np.log([1 / 2, 8 / 9]), rtol=1e-4)
    assert loss_among(np.array([True, True])) == "sparse_categorical_crossentropy"


def test_kept_classes_of_the_starting_model(caplog):
    known = list(ModelInfo.of_keras(ModelFile.read(MODEL)).classes)
    faces = ["with_mask", "without_mask"]
    more = ", ".join(name for name in known if name not in faces)
    with caplog.at_level("INFO"):
        assert kept_classes(str(MODEL), faces, keep=True) == known
        assert kept_classes(str(MODEL), faces, keep=False) == faces
        assert kept_classes(str(MODEL), ["hat", "with_mask"], keep=True) == ["hat", "with_mask"]
        assert kept_classes(str(MODEL), known, keep=True) == known
        assert kept_classes("imagenet", faces, keep=True) == faces
    assert caplog.messages == [
        f"no face of {more} in the data sets: kept as the starting model knows it; --no-keep-classes drops it",
        f"no face of {more} in the data sets: the new model does not know it",
        f"no face of {more}, without_mask in the data sets: the new model does not know it",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-d", "none"], "error: none: no such folder; expected one folder per class", id="no dataset"),
        pytest.param(["-d", "one"], "error: dataset: found only one class (with_mask)", id="one class"),
        pytest.param(["-d", "two", "-m", "x.h5"], "error: x.h5: the name of a model must end in .keras; give -m NAME.keras", id="suffix"),
        pytest.param(["-d", "two", "-m", "bad.keras/x.keras"], "error: bad.keras/x.keras: bad.keras is not a folder; choose", id="no folder"),
        pytest.param(["-d", "two", "--weights", "none.h5"], "error: none.h5: no such file; give --weights imagenet", id="no weights"),
        pytest.param(["-d", "two", "--weights", "bad.weights.h5"], "error: bad.weights.h5: not MobileNetV2(include_top=False)'s weights (", id="bad weights"),
        pytest.param(["-d", "two", "--weights", "bad.keras"], f"error: bad.keras: {CORRUPT}", id="bad .keras"),
        pytest.param(["-d", "two", "-p", "plot.txt"], "error: plot.txt: unknown kind of plot; give a .png, .jpg, .pdf or .svg file", id="plot suffix"),
        pytest.param(["-d", "two", "-f", "none"], "error: none: no such face detector", id="no face detector"),
        pytest.param(["-d", "two", "--weights", "bad.keras", "-m", "bad.keras"], "error: bad.keras: is an input, or another output too; choose another name for it", id="model over its start"),
        pytest.param(["-d", "two", "--only", "none.txt"], "error: none.txt: cannot be read", id="no list"),
    ],
)  # fmt: skip
def test_bad_input(dataset, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, "two")
    shutil.copytree(dataset / "with_mask", "one/with_mask")
    for name in ("bad.weights.h5", "bad.keras"):
        (tmp_path / name).write_bytes(b"noise")
    assert train_mask_detector.main(arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[INFO]")]
    assert len(errors) == 1 and errors[0].startswith(message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.keras", "bad.weights.h5", "one", "two"]


def test_without_a_name_no_model_is_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert default_model(overwrite=False, resume=False) == Path("mask_detector.keras")
    Path("mask_detector.onnx").touch()
    Path("mask_detector-2.keras").touch()
    assert train_mask_detector.main(["-d", "none", "--weights", str(MODEL)]) == 1
    said = "[INFO] mask_detector.keras exists: the new model will be mask_detector-3.keras; --overwrite replaces, -m names it"
    assert said in capsys.readouterr().err.splitlines()
    assert train_mask_detector.main(["-d", "none", "--weights", str(MODEL), "--overwrite"]) == 1
    assert "the new model will be" not in capsys.readouterr().err
    Path("mask_detector-3.checkpoint").mkdir()
    assert default_model(overwrite=False, resume=True) == Path("mask_detector-3.keras")
    Path("mask_detector-2.checkpoint").mkdir()
    Path("mask_detector-3.checkpoint").rmdir()
    assert default_model(overwrite=False, resume=True) == Path("mask_detector-2.keras")
    assert default_model(overwrite=True, resume=True) == Path("mask_detector.keras")


def test_weights_imagenet_without_network(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", no_network)
    with pytest.raises(InputError) as error:
        build_network(ModelInfo(("a", "b"), 96, 0.0), "imagenet")
    assert str(error.value) == (
        "--weights imagenet: cannot be downloaded (no route to host); give a file: "
        "--weights mobilenet_v2_imagenet_no_top.weights.h5, or a detector's .keras"
    )


@pytest.fixture
def tiny():
    """A network, training and validation batches of eight black and white faces."""
    info = ModelInfo(("a", "b"), 96, 0.0)
    crops = [
        Crop(FacePatch(np.full((96, 96, 3), value, np.uint8), (0, 0, 96, 96)), label, EXAMPLES, number)
        for number, (value, label) in enumerate([(0, "a"), (255, "b")] * 4)
    ]

    def make():
        keras.utils.set_random_seed(0)
        train = AugmentedBatches(crops, info, 4, seed=0)
        validation = FaceBatches(crops, info, 4)
        return build_network(info, str(MODEL)), train, validation

    return make


@pytest.mark.slow
def test_fine_tune_in_mixed_precision(tiny, tmp_path):
    """A twin in float16 learns, and the network handed in has the twin's weights, in float32."""
    network, train, validation = tiny()
    before = network.model.get_weights()
    computed = []
    build = keras_network._build_on
    start_checkpoint(tmp_path / "c", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_network, "_build_on", lambda *arguments: computed.append(build(*arguments)) or computed[-1])
        history = fine_tune(network, train, validation, epochs=5, mixed_precision=True, checkpoint=tmp_path / "c")
    (twin,) = computed
    assert twin.model.get_layer("mobilenet_v2").get_layer("Conv1").compute_dtype == "float16"
    assert network.model.get_layer("mobilenet_v2").get_layer("Conv1").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    assert history["val_loss"][-1] < history["val_loss"][0] / 2
    after = network.model.get_weights()
    assert all(weights.dtype == np.float32 for weights in after)
    assert any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
    for ours, of_twin in zip(after, twin.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, of_twin)


class InterruptedIn(keras.callbacks.BackupAndRestore):
    """Keras' callback, which Ctrl-C hits when an epoch begins."""

    epoch = 2

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.set_weights([weight + 1 for weight in self.model.get_weights()])
            raise KeyboardInterrupt


@pytest.mark.slow
def test_fine_tune_interrupted_keeps_the_best_then_resumes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_network, "DROPOUT", 0.0)  # its random numbers start again, all else continues
    checkpoint = tmp_path / "c"
    settings = {"epochs": "4"}
    network, train, validation = tiny()
    start_checkpoint(checkpoint, settings)
    undisturbed = fine_tune(network, train, validation, epochs=4, checkpoint=checkpoint)
    expected = network.model.get_weights()

    network, train, validation = tiny()
    start_checkpoint(checkpoint, settings)
    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks, "BackupAndRestore", InterruptedIn)
        history = fine_tune(network, train, validation, epochs=4, checkpoint=checkpoint)
    assert len(history["loss"]) == 2
    assert min(history["val_loss"]) == pytest.approx(network_loss(network, validation), rel=1e-4)

    network, train, validation = tiny()
    network.model.set_weights([0.9 * weight for weight in network.model.get_weights()])  # what resuming must replace
    assert can_resume(checkpoint, settings)
    history = fine_tune(network, train, validation, epochs=4, checkpoint=checkpoint)
    assert history.keys() == undisturbed.keys()
    np.testing.assert_allclose(history["val_loss"], undisturbed["val_loss"], rtol=1e-3)
    for weight, other in zip(network.model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_train_interrupted_then_resumed(dataset, tmp_path_factory, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    more = tmp_path_factory.mktemp("more") / "dataset"
    shutil.copytree(dataset, more)
    shutil.copy(EXAMPLES / "obama.jpg", more / "without_mask")
    arguments = ["-d", str(dataset), "-m", "mine.keras", "--weights", str(MODEL), "--size", "96", "-e", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks, "BackupAndRestore", InterruptedIn)
        patch.setattr(InterruptedIn, "epoch", 1)
        assert train_mask_detector.main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.checkpoint",
        "mine.int8.onnx",
        "mine.keras",
        "mine.onnx",
        "plot.png",
    ]
    capsys.readouterr()

    assert train_mask_detector.main([*arguments, "--resume", "--seed", "1"]) == 1
    expected = "error: --resume: mine.checkpoint was started with another --seed (42); give that one, or omit --resume\n"
    assert expected in capsys.readouterr().err
    assert train_mask_detector.main([*arguments, "--resume", "-d", str(more)]) == 1
    assert "was started with another split of the photos (" in capsys.readouterr().err
    assert train_mask_detector.main([*arguments, "--resume"]) == 0
    error = capsys.readouterr().err
    assert "[INFO] phase 2: the whole network, where it was interrupted\n" in error
    assert "Epoch 2/2" in error and "Epoch 1/2" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.int8.onnx", "mine.keras", "mine.onnx", "plot.png"]
    assert train_mask_detector.main([*arguments, "--resume", "-e", "0"]) == 0
    assert "[WARN] --resume: there is no interrupted training of mine.keras; a new one starts\n" in capsys.readouterr().err


def network_loss(network, validation):
    network.model.compile(loss="sparse_categorical_crossentropy")
    return network.model.evaluate(validation, verbose=0, return_dict=True)["loss"]


def test_can_resume(tmp_path):
    checkpoint = tmp_path / "m.checkpoint"
    settings = {"--size": "96", "--seed": "1"}
    assert not can_resume(checkpoint, settings)
    start_checkpoint(checkpoint, settings)
    assert can_resume(checkpoint, settings)
    with pytest.raises(InputError) as error:
        can_resume(checkpoint, {"--size": "128", "--seed": "1"})
    expected = f"--resume: {checkpoint} was started with another --size (96); give that one, or omit --resume"
    assert str(error.value) == expected
    (checkpoint / "settings.json").write_text("[")
    with pytest.raises(InputError) as error:
        can_resume(checkpoint, settings)
    assert str(error.value) == f"{checkpoint / 'settings.json'}: corrupt; train again, without --resume"


def test_start_checkpoint_removes_an_earlier_training(tmp_path):
    checkpoint = tmp_path / "m.checkpoint"
    start_checkpoint(checkpoint, {})
    (checkpoint / "history.csv").touch()
    start_checkpoint(checkpoint, {})
    assert [path.name for path in checkpoint.iterdir()] == ["settings.json"]


def test_start_checkpoint_removes_nothing_else(tmp_path):
    checkpoint = tmp_path / "m.checkpoint"
    checkpoint.mkdir()
    (checkpoint / "thesis.txt").touch()
    with pytest.raises(InputError) as error:
        start_checkpoint(checkpoint, {})
    expected = (
        f"{checkpoint}: is in the place of the checkpoint, and no training made it; move it, or give the model another name"
    )
    assert str(error.value) == expected
    assert (checkpoint / "thesis.txt").is_file()


def test_fine_tune_reads_a_history_that_a_crash_cut(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss,val_loss\n0,2.0,3.0\n1,1.0,2.5\n1,0.5,2.0\n2,0.4,")
    assert read_history(tmp_path / "history.csv") == {"loss": [2.0, 0.5], "val_loss": [3.0, 2.0]}


def test_calibrate_cools_an_overconfident_head(tiny):
    network, _, _ = tiny()
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (400, 1280)).astype(np.float32)
    labels = network.head.predict(features, verbose=0).argmax(axis=1)
    wrong = rng.random(400) < 0.25
    labels[wrong] = 1 - labels[wrong]
    before = network.head.predict(features, verbose=0)
    temperature = calibrate(network, features, labels)
    after = network.head.predict(features, verbose=0)
    assert temperature > 1.1
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert log_loss(labels, after) < log_loss(labels, before)
    assert calibrate(network, features, labels) == pytest.approx(1, abs=0.01)


def test_calibrate_does_not_sharpen_where_all_is_right(tiny):
    network, _, _ = tiny()
    features = np.random.default_rng(0).normal(0, 1, (40, 1280)).astype(np.float32)
    labels = network.head.predict(features, verbose=0).argmax(axis=1)
    assert calibrate(network, features, labels) == pytest.approx(1, abs=1e-3)


def crops_of(image, labels: str, face_ids=None) -> list[Crop]:
    """Return crops of the astronaut's face with these one-letter labels."""
    patch = FacePatch(image, (142, 60, 237, 178))
    return [Crop(patch, label, EXAMPLES, number) for label, number in zip(labels, face_ids or range(len(labels)), strict=True)]


def test_face_batches_hold_all_in_order(astronaut):
    batches = FaceBatches(crops_of(astronaut, "abbab"), ModelInfo(("a", "b"), 96, 0.1), 2)
    assert [batches[number][1].tolist() for number in range(len(batches))] == [[0, 1], [1, 0], [1]]
    assert batches[2][0].shape == (1, 96, 96, 3) and batches[2][0].dtype == np.float32


def test_augmented_batches_repeat_by_seed_and_change_by_epoch(astronaut):
    crops = crops_of(astronaut, "abbab")
    one, other = (AugmentedBatches(crops, ModelInfo(("a", "b"), 96, 0.1), 2, seed=7) for _ in range(2))
    assert one.batches_per_epoch == 3
    np.testing.assert_array_equal(one[1][0], other[1][0])
    assert one[2][0].shape == one[5][0].shape == (1, 96, 96, 3)
    assert not np.array_equal(one[0][0], one[3][0])
    other.start(epoch=1)
    np.testing.assert_array_equal(one[4][0], other[1][0])


def test_augmented_batches_show_one_crop_of_each_face_per_epoch(astronaut):
    crops = crops_of(astronaut, "abcdef", [0, 1, 0, 1, 2, 0])
    batches = AugmentedBatches(crops, ModelInfo(tuple("abcdef"), 96, 0.0), 4, seed=0)
    assert batches.batches_per_epoch == 1
    shown = set()
    for epoch in range(20):
        indices = batches[epoch][1].tolist()
        assert sorted(crops[index].face_id for index in indices) == [0, 1, 2]
        shown.update(indices)
    assert shown == set(range(6))


# What Keras makes of the batches is its backend's matter: a process each.
COUNT_SHOWN = """
import keras, numpy as np
from facemask.models.model_info import ModelInfo
from facemask.training.batches import AugmentedBatches
from facemask.training.crops import Crop, FacePatch
patch = FacePatch(np.full((8, 8, 3), 128, np.uint8), (0, 0, 8, 8))
names = tuple(map(str, range(60)))
batches = AugmentedBatches([Crop(patch, n, n, int(n)) for n in names], ModelInfo(names, 8, 0.0), 3, seed=0, workers=2)
class Shown(keras.metrics.Metric):
    def __init__(self):
        super().__init__(name="shown")
        self.counts = self.add_weight(shape=(60,), initializer="zeros")
    def update_state(self, true, predicted, sample_weight=None):
        self.counts.assign_add(keras.ops.sum(keras.ops.one_hot(keras.ops.reshape(true, (-1,)), 60), axis=0))
    def result(self):
        return keras.ops.sum(self.counts)
    def reset_state(self):
        pass
shown = Shown()
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
model.compile("sgd", "mse", metrics=[shown])
model.fit(batches, steps_per_epoch=batches.batches_per_epoch, epochs=5, verbose=0)
print(keras.ops.convert_to_numpy(shown.counts).astype(int).tolist())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_each_epoch_shows_each_face_once_also_with_workers(backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed; it is another backend that Keras can use")
    done = subprocess.run(
        [sys.executable, "-c", COUNT_SHOWN],
        cwd=ROOT, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert counts.sum() == 5 * 60
    assert np.abs(counts - 5).sum() <= 2 * 3  # torch and jax build the model on a batch of its own: all are one batch late


def test_export_command_remakes_the_onnx(tmp_path, capsys):
    shutil.copy(MODEL, tmp_path / "model.keras")
    assert export_main([str(tmp_path / "model.keras")]) == 0
    assert capsys.readouterr().out == f"saved to {tmp_path / 'model.onnx'}\n"
    assert MaskClassifier.load(tmp_path / "model.keras").backend == "onnxruntime on cpu"
    remade, shipped = onnx.load(tmp_path / "model.onnx"), onnx.load(MODEL.with_suffix(".onnx"))
    assert [node.op_type for node in remade.graph.node] == [node.op_type for node in shipped.graph.node]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        pytest.param(keras.layers.LayerNormalization(name="odd"), "its kind LayerNormalization is", id="kind"),
        pytest.param(keras.layers.Conv2D(2, 3, activation="silu", name="odd"), "its activation silu is", id="activation"),
        pytest.param(
            keras.layers.Conv2DTranspose(2, 3, padding="same", name="odd"), "its padding or activation is", id="padding"
        ),
    ],
)
def test_to_onnx_refuses_unknown_layers(layer, reason):
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=f"cannot write layer 'odd' as ONNX: {reason} not known here"):
        to_onnx(keras.Model(inputs, layer(inputs)), {})


def test_load_keras_refuses_code(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "code.keras")
    with pytest.raises(InputError, match=re.escape(CORRUPT)):
        load_keras(tmp_path / "code.keras")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backend_trains(dataset, tmp_path, backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed; it is another backend that Keras can use")
    arguments = [
        "-d",
        dataset,
        "-m",
        tmp_path / "m.keras",
        "-p",
        tmp_path / "p.png",
        "--weights",
        MODEL,
        "--size",
        "96",
        "-e",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, "train_mask_detector.py", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"({backend} backend)" in done.stderr
    assert MaskClassifier.load(tmp_path / "m.keras").backend == "onnxruntime on cpu"


@pytest.mark.shared
def test_head_alone_learns_the_tutorials_photos(shared, tmp_path, capsys):
    weights = shared / "weights" / "mobilenet_v2_imagenet_no_top.weights.h5"
    arguments = ["-d", str(shared / "tutorial_dataset"), "--weights", str(weights), "-e", "0", "--size", "96"]
    assert train_mask_detector.main([*arguments, "-m", str(tmp_path / "m.keras"), "-p", str(tmp_path / "p.png")]) == 0
    accuracy = float(capsys.readouterr().out.split("\nAccuracy ")[1].split()[0])
    assert accuracy >= 0.97
