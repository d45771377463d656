"""The mean of several mask classifiers' weights."""

import numpy as np
import pytest

pytestmark = pytest.mark.training
keras = pytest.importorskip("keras")

from facemask.__main__ import main  # noqa: E402
from facemask.cli.run import DONE, FAILED  # noqa: E402
from facemask.models.keras_network import build_network, load_keras  # noqa: E402
from facemask.models.model_info import ModelInfo  # noqa: E402
from facemask.training.onnx_export import save_detector  # noqa: E402
from tests.helpers import ROOT  # noqa: E402

WEIGHTS = str(ROOT / "mask_detector.keras")


def write(path, classes: tuple[str, ...], size: int, value: float) -> None:
    """Write a model with the shipped backbone, but a head of one value."""
    network = build_network(ModelInfo(classes, size, 0.0), WEIGHTS)
    network.head.set_weights([np.full_like(array, value) for array in network.head.get_weights()])
    save_detector(network.model, network.info, path)


def test_average_of_models_of_which_one_knows_another_class(tmp_path, capsys):
    write(tmp_path / "a.keras", ("with_mask", "without_mask"), 96, 1.0)
    write(tmp_path / "b.keras", ("background", "with_mask", "without_mask"), 96, 4.0)
    inputs = [str(tmp_path / name) for name in ("a.keras", "a.keras", "b.keras")]
    assert main(["average", *inputs, "-m", str(tmp_path / "c.keras")]) == DONE
    mean = load_keras(tmp_path / "c.keras")
    assert mean.info.classes == ("background", "with_mask", "without_mask")
    kernel, bias = mean.head.get_weights()
    np.testing.assert_allclose(bias, [4.0, 2.0, 2.0])
    np.testing.assert_allclose(kernel[0], [4.0, 2.0, 2.0])
    one = load_keras(tmp_path / "a.keras").model.get_layer("mobilenet_v2").get_weights()
    for ours, theirs in zip(mean.model.get_layer("mobilenet_v2").get_weights(), one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert (tmp_path / "c.onnx").is_file()


@pytest.mark.parametrize(
    ("classes", "size", "reason"),
    [
        pytest.param(("no", "yes"), 96, "has other classes (no, yes); give models of the same classes", id="classes"),
        pytest.param(
            ("with_mask", "without_mask"), 128, "its input has another size or margin; give models of one kind", id="size"
        ),
    ],
)
def test_models_that_have_no_mean(tmp_path, capsys, classes, size, reason):
    write(tmp_path / "a.keras", ("background", "with_mask", "without_mask"), 96, 1.0)
    write(tmp_path / "b.keras", classes, size, 1.0)
    assert main(["average", str(tmp_path / "a.keras"), str(tmp_path / "b.keras"), "-m", str(tmp_path / "c.keras")]) == FAILED
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path / 'b.keras'}: {reason}"
    assert not (tmp_path / "c.keras").exists()
