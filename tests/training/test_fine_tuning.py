"""Fine-tuning: it keeps the best epoch, leaves BatchNorm as it is, and its learning rate climbs and falls."""

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.training
keras = pytest.importorskip("keras")

from facemask.models.keras_network import Network, build_network  # noqa: E402
from facemask.models.model_info import ModelInfo  # noqa: E402
from facemask.training.batches import AugmentedBatches, FaceBatches  # noqa: E402
from facemask.training.checkpoint import start_checkpoint  # noqa: E402
from facemask.training.crops import Crop, FacePatch  # noqa: E402
from facemask.training.fit import fine_tune, warmup_cosine_schedule  # noqa: E402

INFO = ModelInfo(("dark", "bright"), 32, 0.0)
EPOCHS = 3


def small_backbone(*, input_shape: tuple, name: str, **_: object) -> keras.Model:
    """Return a network with the layers that matter here, in place of MobileNetV2, which takes long to compile."""
    images = keras.Input(input_shape)
    convolved = keras.layers.Conv2D(4, 8, strides=8, name="convolution")(images)
    return keras.Model(images, keras.layers.BatchNormalization(name="norm")(convolved), name=name)


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory) -> tuple[Network, dict, list[np.ndarray], list[np.ndarray]]:
    """Return a fine-tuned network, its history, and the weights of its BatchNorm and convolution before.

    The faces that it is validated on have the wrong labels: the more it learns, the higher is their loss.
    """
    patches = [FacePatch(np.full((32, 32, 3), value, np.uint8), (0, 0, 32, 32)) for value in (30, 220) * 8]
    crops = [Crop(patch, INFO.classes[index % 2], Path(), index) for index, patch in enumerate(patches)]
    wrong = [Crop(patch, INFO.classes[1 - index % 2], Path(), index) for index, patch in enumerate(patches)]
    keras.utils.set_random_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "MobileNetV2", small_backbone)
        network = build_network(INFO, "imagenet")
    before = [network.model.get_layer("mobilenet_v2").get_layer(name).get_weights() for name in ("norm", "convolution")]
    checkpoint = tmp_path_factory.mktemp("training") / "checkpoint"
    start_checkpoint(checkpoint, {})
    train = AugmentedBatches(crops, INFO, 4, seed=0)
    validation = FaceBatches(wrong, INFO, 16)
    history = fine_tune(network, train, validation, epochs=EPOCHS, learning_rate=0.001, checkpoint=checkpoint)
    losses = history["val_loss"]
    assert len(losses) == EPOCHS and losses == sorted(losses)
    network.model.compile(loss="sparse_categorical_crossentropy")
    history["kept"] = network.model.evaluate(validation, verbose=0, return_dict=True)["loss"]
    return network, history, *before


def test_fine_tuning_keeps_the_epoch_with_the_best_validation_loss(fine_tuned):
    _, history, _, _ = fine_tuned
    assert history["kept"] == pytest.approx(history["val_loss"][0], rel=1e-3)
    assert history["kept"] < 0.9 * history["val_loss"][-1]


def test_fine_tuning_leaves_batch_norm_as_it_is(fine_tuned):
    network, _, norm, convolution = fine_tuned
    backbone = network.model.get_layer("mobilenet_v2")
    for now, before in zip(backbone.get_layer("norm").get_weights(), norm, strict=True):
        np.testing.assert_array_equal(now, before)
    changes = [
        np.abs(now - before).max()
        for now, before in zip(backbone.get_layer("convolution").get_weights(), convolution, strict=True)
    ]
    assert min(changes) > 1e-4  # all else learns


def test_learning_rate_climbs_in_a_twentieth_of_the_steps_then_falls_to_zero():
    schedule = warmup_cosine_schedule(2e-4, 200)
    rates = np.array([float(schedule(step)) for step in range(201)])
    assert rates.argmax() == 10 and rates[10] == pytest.approx(2e-4)
    assert (np.diff(rates[:11]) > 0).all() and (np.diff(rates[10:]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-9)
