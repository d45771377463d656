"""The face detector's training keeps the moving average of the weights (EMA), not the weights of the last step."""

from argparse import Namespace

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
keras = pytest.importorskip("keras")

from face_detector import train  # noqa: E402
from face_detector.mosaics import Photo, Source  # noqa: E402

MOMENTUM = 0.998
STEPS = 3  # per epoch


class StepWeights(keras.callbacks.CSVLogger):
    """Keras' callback, which also copies the weights after each step."""

    after_step: list[list[np.ndarray]] = []  # noqa: RUF012

    def on_train_batch_end(self, batch, logs=None):
        self.after_step.append([weights.copy() for weights in self.model.get_weights()])


def test_training_keeps_the_average_of_the_weights(tmp_path, monkeypatch):
    """Over two epochs, after each of which the average so far is written."""
    monkeypatch.setattr(StepWeights, "after_step", [])
    monkeypatch.setattr(keras.callbacks, "CSVLogger", StepWeights)
    keras.utils.set_random_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    photo = Photo(cv2.imencode(".png", image)[1].tobytes(), (80, 80), boxes=np.array([(20, 20, 60, 60)], np.float32))
    images = keras.Input((None, None, 3))
    scaled = keras.layers.Rescaling(1 / 255)(images)
    network = keras.Model(images, keras.layers.Conv2D(5, 4, strides=4)(scaled))  # the shapes of the detector's
    args = Namespace(size=64, batch_size=2, seed=1, workers=1, frozen=0, learning_rate=0.01, epochs=2, steps=STEPS)
    train.fit(network, [Source([photo], weight=1.0, sides=(60, 90))], [], args, tmp_path)

    steps = StepWeights.after_step
    assert len(steps) == 2 * STEPS
    average = steps[0]
    for weights in steps[1:]:
        average = [MOMENTUM * mean + (1 - MOMENTUM) * new for mean, new in zip(average, weights, strict=True)]
    for kept, mean, last in zip(network.get_weights(), average, steps[-1], strict=True):
        np.testing.assert_allclose(kept, mean, atol=1e-5)
        assert np.abs(kept - last).max() > 1e-3
