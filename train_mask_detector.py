#!/usr/bin/env python3
"""Train the mask classifier: fine-tune MobileNetV2 on photos of faces.

  python train_mask_detector.py -d dataset                              a folder per class; ImageNet weights downloaded
  python train_mask_detector.py -d dataset photos --only train.txt      and annotated photos (Pascal VOC), some of them
  python train_mask_detector.py -d my_faces --weights mask_detector.keras -m mine.keras     go on from a trained model

Classes are the folders' (or annotations') names. Writes the model (.keras), the same for detection (.onnx beside it)
and a plot. KERAS_BACKEND=tensorflow, torch or jax says what computes it. Ctrl-C ends fine-tuning early, with the best
model so far; the same command with --resume goes on, also after a crash. Exit code: 0 done, also if ended early, 1 if
something given was bad, 2 for a wrong command line, 130 after Ctrl-C before fine-tuning.
"""

import argparse
import hashlib
import json
import logging
import shutil
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError

logger = logging.getLogger("facemask")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-d", "--dataset", nargs="+", type=Path, required=True, metavar="FOLDER",
        help="datasets: a folder per class, or images/ with Pascal VOC annotations/",
    )  # fmt: skip
    options.add_only_argument(parser)
    parser.add_argument("-m", "--model", type=Path, default="mask_detector.keras", help="model to write, .keras")
    parser.add_argument("-p", "--plot", type=Path, default="plot.png", help="plot to write: loss, accuracy, confusion matrix")
    parser.add_argument(
        "-f",
        "--face",
        type=Path,
        default=options.DEFAULT_FACE_DETECTOR,
        help="face detector, to cut out single faces (default: face_detector)",
    )
    parser.add_argument(
        "--weights", default="imagenet",
        help="start: imagenet (downloaded), a .weights.h5 of MobileNetV2(include_top=False), or a trained .keras",
    )  # fmt: skip
    parser.add_argument("--size", type=int, choices=(96, 128, 160, 192, 224), default=128, help="side of the input in pixels")
    parser.add_argument(
        "--margin", type=options.probability, default=0.0, help="kept around a face, as a part of its longer side, on each side"
    )
    parser.add_argument(
        "-e", "--epochs", type=options.natural_int, default=14, help="of fine-tuning; the best is kept; 0 trains the head only"
    )
    parser.add_argument("-b", "--batch-size", type=options.positive_int, default=64, help="faces in a step of fine-tuning")
    parser.add_argument(
        "--learning-rate", type=options.positive_number, default=2e-4, help="of Adam in fine-tuning, at its highest"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the fine-tuning of this model that was interrupted")
    parser.add_argument(
        "--mixed-precision",
        action=argparse.BooleanOptionalAction,
        help="fine-tune in float16, faster on a GPU (default: only where there is one)",
    )
    options.add_max_pixels(parser)
    parser.add_argument("--workers", type=options.positive_int, default=2, help="threads that prepare faces")
    parser.add_argument("--seed", type=options.natural_int, default=42, help="of the split, the shuffling and the augmentation")
    return parser


def train(args: argparse.Namespace) -> int:
    samples = read_samples(args)
    from facemask.io.outputs import check_outputs
    from facemask.models.face_detectors import load_face_detector
    from facemask.parallel import thread_budget
    from facemask.training.dataset import add_single_faces, class_names, load_patches
    from facemask.training.split import SAME_PHOTO, split_samples

    classes = class_names(samples)
    if args.model.suffix != ".keras":
        raise InputError(f"{args.model}: a model's name must end in .keras; give -m NAME.keras")
    if args.weights != "imagenet" and not Path(args.weights).is_file():
        raise InputError(f"{args.weights}: no such file; give --weights imagenet, a .weights.h5 or a .keras file")
    options.check_plot_name(args.plot)
    weights = [] if args.weights == "imagenet" else [Path(args.weights)]
    check_outputs((args.model, args.model.with_suffix(".onnx"), args.plot), weights)

    workers, threads = thread_budget()
    detector = load_face_detector(args.face, threads=threads)

    import keras
    import numpy as np
    from sklearn.metrics import classification_report, confusion_matrix
    from tqdm import tqdm

    from facemask.evaluation.plots import plot_training
    from facemask.models.keras_network import build_network
    from facemask.models.model_info import ModelInfo
    from facemask.training.batches import AugmentedBatches, FaceBatches
    from facemask.training.checkpoint import can_resume, check_checkpoint, record_settings, start_checkpoint
    from facemask.training.fit import calibrate, fine_tune, has_gpu, train_head
    from facemask.training.onnx_export import save_detector

    start = time.perf_counter()
    checkpoint = args.model.with_name(f"{args.model.stem}.checkpoint")
    if args.mixed_precision is None:
        args.mixed_precision = has_gpu()
    names = ("weights", "size", "margin", "epochs", "batch_size", "learning_rate", "mixed_precision", "seed")
    settings = record_settings(args, names)
    resumed = args.resume and can_resume(checkpoint, settings)
    if args.resume and not resumed:
        logger.warning("--resume: there is no interrupted training of %s, so this starts anew", args.model)
    if not resumed:
        check_checkpoint(checkpoint)
    keras.utils.set_random_seed(args.seed)
    info = ModelInfo(tuple(classes), args.size, args.margin)
    network = build_network(info, args.weights)

    samples = add_single_faces(
        samples, detector, lambda photos: tqdm(photos, desc="finding faces", unit="photo"), workers, args.max_pixels
    )
    patches, unreadable = load_patches(
        samples, args.size, lambda paths: tqdm(paths, desc="photos", unit="photo"), args.max_pixels
    )
    for message in unreadable:
        logger.warning("left out: %s", message)
    if unreadable:
        logger.warning("%d of %d photos could not be read", len(unreadable), len({sample.path for sample in samples}))
    if not patches:
        raise InputError("dataset: not one photo could be read; see the warnings above")
    samples = [samples[index] for index in patches]
    faces = list(patches.values())  # or views of faces: some come both whole and cut out
    labels = np.array([classes.index(sample.label) for sample in samples])
    face_numbers = np.unique([f"{sample.path} {sample.face}" for sample in samples], return_inverse=True)[1]

    def batches(part) -> FaceBatches:
        return FaceBatches([faces[i] for i in part], labels[part], info, args.batch_size)

    logger.info("features of the frozen backbone, once for all %d views (%s backend)", len(faces), keras.backend.backend())
    with redirect_stdout(sys.stderr):  # Keras' progress bars
        features = network.features.predict(batches(np.arange(len(faces))))
    split, groups, similarity = split_samples(features, labels, [sample.path for sample in samples], classes, args.seed)
    if similarity > SAME_PHOTO[0]:
        logger.warning(
            "the photos are much alike: near-duplicates (below similarity %g) may be in two parts, and the report flatters",
            similarity,
        )
    last_view = dict(zip(face_numbers[split.test].tolist(), split.test.tolist(), strict=True))
    test = np.array(sorted(last_view.values()))  # each face once, cut out where the detector found it
    report_split({"train": split.train, "validation": split.validation, "test": test}, labels, classes, groups)
    parts = [(str(samples[i].path), samples[i].face, name) for name, part in asdict(split).items() for i in part]
    settings["split of the photos"] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    if resumed:
        can_resume(checkpoint, settings)

    logger.info("phase 1: the head, on those features")
    validation = features[split.validation], labels[split.validation]
    head_history = train_head(network, features[split.train], labels[split.train], validation, args.seed)
    logger.info("%d epochs, validation accuracy %.4f", len(head_history["loss"]), max(head_history["val_accuracy"]))
    fine_tuning = {}
    if args.epochs:
        how = "where it was interrupted" if resumed else "on augmented faces; Ctrl-C ends it early, --resume goes on"
        logger.info("phase 2: the whole network, %s", how)
        if not resumed:
            start_checkpoint(checkpoint, settings)
        with redirect_stdout(sys.stderr):
            fine_tuning = fine_tune(
                network,
                AugmentedBatches(
                    [faces[i] for i in split.train], labels[split.train], info, args.batch_size,
                    faces=face_numbers[split.train], seed=args.seed, workers=args.workers,
                ),
                batches(split.validation),
                epochs=args.epochs,
                learning_rate=args.learning_rate,
                mixed_precision=args.mixed_precision,
                checkpoint=checkpoint,
            )  # fmt: skip

    if fine_tuning and len(fine_tuning["loss"]) < args.epochs:
        done = len(fine_tuning["loss"])
        logger.info("fine-tuning ended early, after %d of %d epochs; the same command with --resume goes on", done, args.epochs)
    held_out = network.features.predict(batches(split.validation), verbose=0)
    temperature = calibrate(network, held_out, labels[split.validation])
    logger.info("probabilities calibrated on the validation part: temperature %.2f", temperature)
    probabilities = network.model.predict(batches(test), verbose=0)
    predicted, true = probabilities.argmax(axis=1), labels[test]
    onnx_path = save_detector(network.model, info, args.model)
    if fine_tuning and len(fine_tuning["loss"]) == args.epochs:
        shutil.rmtree(checkpoint, ignore_errors=True)
    confusion = confusion_matrix(true, predicted, labels=range(len(classes)))
    seen = "the model that this one goes on from may have" if args.weights.endswith(".keras") else "no epoch has"
    print(f"Faces of the test part, which {seen} seen:\n")
    print(classification_report(true, predicted, labels=range(len(classes)), target_names=classes, digits=4, zero_division=0))
    print("Confusion matrix (a row a true class):")
    for name, row in zip(classes, confusion, strict=True):
        print(f"  {name:24s}" + "".join(f"{count:7d}" for count in row))
    for folder in args.dataset if len(args.dataset) > 1 else []:
        inside = np.array([samples[i].path.is_relative_to(folder) for i in test], bool)
        if inside.any():
            print(f"  {folder}: accuracy {np.mean((predicted == true)[inside]):.4f} on {inside.sum()} faces")
    minutes = (time.perf_counter() - start) / 60
    print(f"\nAccuracy {np.mean(predicted == true):.4f} on {len(true)} faces; {minutes:.1f} minutes in all")
    plot_training(args.plot, head_history, fine_tuning, confusion, classes)
    logger.info("saved to %s, %s and %s", args.model, onnx_path, args.plot)
    return DONE


def read_samples(args: argparse.Namespace) -> list:
    """List the faces of all datasets given."""
    from facemask.training.dataset import read_dataset

    names = options.read_names(args.only)
    return [sample for folder in args.dataset for sample in read_dataset(folder, names)]


def report_split(parts: dict, labels, classes: list[str], groups) -> None:
    """Print how many views of faces of each class are in each part."""
    import numpy as np

    print("\n" + " " * 26 + "".join(f"{name:>12s}" for name in parts))
    for index, name in enumerate(classes):
        print(f"  {name:24s}" + "".join(f"{np.sum(labels[part] == index):12d}" for part in parts.values()))
    print("  (train, validation: views, for a face of a class folder may come both whole and cut out; test: each face once)")
    print(f"  {len(np.unique(groups))} groups of near-duplicates; no group is in two parts\n", flush=True)


def main(argv: list[str] | None = None) -> int:
    return run(train, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
