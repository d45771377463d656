#!/usr/bin/env python3
"""The tutorial's way of doing what this project does, for benchmarks/speed.py to measure against.

  python -m benchmarks.tutorial make tutorial.keras                        its network, untrained: speed is the same
  python -m benchmarks.tutorial images tutorial.keras examples/*.jpg       each face through model.predict
  python -m benchmarks.tutorial video tutorial.keras street.mp4 out.mp4    the same for each frame
  python -m benchmarks.tutorial train tutorial_dataset --weights mobilenet_v2_imagenet_no_top.weights.h5

What hundreds of copies do, written again: everything is imported at the start; the res10 SSD in cv2.dnn detects faces; each
face is scaled to 224x224 and classified by a call of Keras' `model.predict` (in video with --at-once: one call per frame);
training runs the frozen MobileNetV2 over augmented faces in each of 20 epochs, Adam from 1e-4 falling, batches of 32. Only
what no longer runs is replaced: the Caffe face detector by its ONNX conversion, ImageDataGenerator by Keras 3's layers.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import quiet_libraries

quiet_libraries()

import cv2  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

from facemask.models.res10 import Res10Detector  # noqa: E402

ROOT = Path(__file__).parents[1]
SIZE = 224  # px
RATE = 1e-4  # of Adam
EPOCHS = 20
BATCH_SIZE = 32
LABELS = {"with_mask": ("Mask", (0, 255, 0)), "without_mask": ("No Mask", (0, 0, 255))}


def build_model(weights: str | None = None) -> keras.Model:
    """Build MobileNetV2, frozen, with the tutorial's head: (n, 224, 224, 3) RGB -1..1 -> (n, 2)."""
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    if weights:
        backbone.load_weights(weights)
    backbone.trainable = False
    x = layers.AveragePooling2D(pool_size=(7, 7))(backbone.output)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return keras.Model(backbone.input, layers.Dense(2, activation="softmax")(layers.Dropout(0.5)(x)))


class Tutorial:
    """Its two networks, loaded."""

    def __init__(self, model: str) -> None:
        self.faces = Res10Detector.load(ROOT / "face_detector" / Res10Detector.FILE_NAME)
        self.model = keras.models.load_model(model)

    def warm_up(self) -> None:
        """Call `predict` once, which compiles the network."""
        self.model.predict(np.zeros((1, SIZE, SIZE, 3), np.float32), verbose=0)

    def classify(self, image: np.ndarray, boxes: list, at_once: bool = False) -> np.ndarray:
        """Return probabilities (n, 2) of `boxes` of `image`, uint8 (H, W, 3) BGR; one `predict` per box, or one for all."""
        faces = []
        for x1, y1, x2, y2 in boxes:
            face = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2RGB)
            face = keras.utils.img_to_array(cv2.resize(face, (SIZE, SIZE)))
            faces.append(keras.applications.mobilenet_v2.preprocess_input(face))
        if not faces:
            return np.empty((0, 2))
        if at_once:
            return self.model.predict(np.stack(faces), batch_size=BATCH_SIZE, verbose=0)
        return np.concatenate([self.model.predict(face[None], verbose=0) for face in faces])

    def detect(self, image: np.ndarray, at_once: bool = False) -> list:
        """Return a box (x1, y1, x2, y2 px) with the probabilities (2,) for each face of `image`, uint8 (H, W, 3) BGR."""
        boxes = [face.box for face in self.faces.detect(image, 0.5)]
        return list(zip(boxes, self.classify(image, boxes, at_once), strict=True))


def draw(image: np.ndarray, found: list) -> None:
    """Draw boxes and labels, in place."""
    for (x1, y1, x2, y2), (mask, bare) in found:
        text, colour = LABELS["with_mask" if mask > bare else "without_mask"]
        cv2.putText(image, f"{text}: {max(mask, bare):.2%}", (x1, y1 - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 2)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)


def run_images(args: argparse.Namespace) -> None:
    tutorial = Tutorial(args.model)
    if len(args.images) > 1:
        tutorial.warm_up()
    start = time.perf_counter()
    faces = sum(len(tutorial.detect(cv2.imread(path))) for path in args.images)
    print(json.dumps({"images": len(args.images), "faces": faces, "seconds": time.perf_counter() - start}))


def run_video(args: argparse.Namespace) -> None:
    tutorial = Tutorial(args.model)
    tutorial.warm_up()
    capture = cv2.VideoCapture(args.video)
    rate, size = capture.get(cv2.CAP_PROP_FPS), [int(capture.get(side)) for side in (3, 4)]
    sink = cv2.VideoWriter(args.output, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    frames, faces, start = 0, 0, time.perf_counter()
    while frames < args.max_frames and (frame := capture.read()[1]) is not None:
        found = tutorial.detect(frame, args.at_once)
        draw(frame, found)
        sink.write(frame)
        frames, faces = frames + 1, faces + len(found)
    print(json.dumps({"frames": frames, "faces": faces, "seconds": time.perf_counter() - start}))
    sink.release()


def run_train(args: argparse.Namespace) -> None:
    from sklearn.model_selection import train_test_split
    from tqdm import tqdm

    start = time.perf_counter()
    paths = [path for label in LABELS for path in sorted((args.dataset / label).iterdir())]
    faces = [keras.utils.load_img(path, target_size=(SIZE, SIZE)) for path in paths]
    faces = keras.applications.mobilenet_v2.preprocess_input(np.stack([keras.utils.img_to_array(face) for face in faces]))
    labels = keras.utils.to_categorical([list(LABELS).index(path.parent.name) for path in paths])
    x, test_x, y, test_y = train_test_split(faces, labels, test_size=0.2, stratify=labels, random_state=42)
    augment = keras.Sequential(
        [
            layers.RandomRotation(20 / 360),
            layers.RandomZoom(0.15),
            layers.RandomTranslation(0.2, 0.2),
            layers.RandomShear(0.15, 0.15),
            layers.RandomFlip("horizontal"),
        ]
    )
    model = build_model(args.weights)
    training = keras.Sequential([keras.Input((SIZE, SIZE, 3)), augment, model])
    steps = len(x) // BATCH_SIZE
    schedule = keras.optimizers.schedules.InverseTimeDecay(RATE, 1, RATE / EPOCHS)
    training.compile(keras.optimizers.Adam(schedule), "binary_crossentropy", metrics=["accuracy"])
    for epoch in tqdm(range(1, args.epochs + 1), unit="epoch", disable=None):
        training.fit(x, y, batch_size=BATCH_SIZE, steps_per_epoch=steps, verbose=0)
        accuracy = training.evaluate(test_x, test_y, batch_size=BATCH_SIZE, verbose=0)[1]
        print(json.dumps({"epoch": epoch, "accuracy": accuracy, "seconds": time.perf_counter() - start}), flush=True)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    make = commands.add_parser("make", help="write the network, untrained")
    make.add_argument("model")
    make.set_defaults(run=lambda args: build_model().save(args.model))
    images = commands.add_parser("images", help="detect in images")
    images.add_argument("model")
    images.add_argument("images", nargs="+")
    images.set_defaults(run=run_images)
    video = commands.add_parser("video", help="detect in a video")
    for name in ("model", "video", "output"):
        video.add_argument(name)
    video.add_argument("--max-frames", type=int, default=sys.maxsize)
    video.add_argument("--at-once", action="store_true", help="one predict per frame, as the tutorial's video script does")
    video.set_defaults(run=run_video)
    train = commands.add_parser("train", help="train")
    train.add_argument("dataset", type=Path)
    train.add_argument("--weights", required=True)
    train.add_argument("--epochs", type=int, default=EPOCHS)
    train.set_defaults(run=run_train)
    return parser


if __name__ == "__main__":
    args = build_parser().parse_args()
    args.run(args)
