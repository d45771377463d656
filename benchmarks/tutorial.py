#!/usr/bin/env python3
"""The well-known tutorial's recipe, written afresh on today's libraries, as the yardstick for accuracy.

  python benchmarks/tutorial.py ../shared/tutorial_dataset ../shared/weights/mobilenet_v2_imagenet_no_top.weights.h5 \\
      ../shared/photos -o tutorial.jsonl

Trains as it does: whole photos squeezed to 224x224, MobileNetV2 frozen, pooling 7x7, Dense 128, dropout 0.5, Adam 1e-4
decaying over 20 epochs, batches of 32, its augmentation, a random 80/20 split. Then finds faces with the res10 SSD and
classifies each tight crop, as it does, and writes what detect_mask_image.py writes, for scoring. About 20 minutes on two
cores.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from sklearn.model_selection import train_test_split
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from facemask import cli
from facemask.dataset import class_names, read_dataset
from facemask.faces import FaceDetector
from facemask.media import find_images, read_image

SIZE, RATE, EPOCHS, BATCH = 224, 1e-4, 20, 32


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("dataset", type=Path, help="a folder per class")
    parser.add_argument("weights", type=Path, help="ImageNet weights of MobileNetV2(include_top=False), .weights.h5")
    parser.add_argument("photos", type=Path, help="annotated photos: images/ in it")
    parser.add_argument("--only", type=Path, help="names of the photos to use")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON lines to write")
    parser.add_argument("-c", "--confidence", type=cli.probability, default=0.05, help="least confidence of a face")
    return parser


def run(args: argparse.Namespace) -> int:
    import keras
    from keras import layers

    keras.utils.set_random_seed(42)
    samples = read_dataset(args.dataset)
    classes = class_names(samples)
    photos = np.stack([prepare(read_image(sample.path)) for sample in tqdm(samples, desc="photos")])
    labels = keras.utils.to_categorical([classes.index(sample.label) for sample in samples])
    train_x, test_x, train_y, test_y = train_test_split(photos, labels, test_size=0.2, stratify=labels, random_state=42)

    augment = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(20 / 360, fill_mode="nearest"),
            layers.RandomZoom(0.15, fill_mode="nearest"),
            layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
        ]
    )
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    base.load_weights(args.weights)
    base.trainable = False
    head = [
        layers.AveragePooling2D(7),
        layers.Flatten(),
        layers.Dense(128, "relu"),
        layers.Dropout(0.5),
        layers.Dense(len(classes), "softmax"),
    ]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), augment, base, *head])
    steps = EPOCHS * (len(train_x) // BATCH)
    decay = keras.optimizers.schedules.InverseTimeDecay(RATE, 1, RATE / EPOCHS)  # what Keras 2's Adam(decay=) did
    model.compile(keras.optimizers.Adam(decay), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x, train_y, BATCH, EPOCHS, validation_data=(test_x, test_y), verbose=2)
    print(f"{steps} steps; accuracy on its own test part: {model.evaluate(test_x, test_y, verbose=0)[1]:.4f}")

    detector = FaceDetector.load(cli.DEFAULT_FACE_DETECTOR)
    paths = find_images([str(args.photos / "images")])
    if args.only:
        names = set(args.only.read_text().split())
        paths = [path for path in paths if path.stem in names]
    with open(args.output, "w") as file:
        for path in tqdm(paths):
            image, faces = read_image(path), []
            for face in detector.detect(image, args.confidence):
                x1, y1, x2, y2 = face.box
                row = model(prepare(image[y1:y2, x1:x2])[None], training=False)
                probabilities = dict(zip(classes, keras.ops.convert_to_numpy(row)[0].tolist(), strict=True))
                label = max(probabilities, key=probabilities.get)
                faces.append(
                    {"box": face.box, "confidence": face.confidence, "label": label, "probability": probabilities[label]}
                )
            print(json.dumps({"image": path.name, "faces": faces}), file=file)
    return cli.DONE


def prepare(image: np.ndarray) -> np.ndarray:
    """Squeeze a BGR picture to what the tutorial's network takes: float32 (224, 224, 3) RGB in -1..1."""
    return cv2.cvtColor(cv2.resize(image, (SIZE, SIZE)), cv2.COLOR_BGR2RGB).astype(np.float32) / 127.5 - 1


def main(argv: list[str] | None = None) -> int:
    return cli.run(run, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
