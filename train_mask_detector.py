#!/usr/bin/env python3
"""Train the mask classifier: fine-tune MobileNetV2 on photos of faces.

  python train_mask_detector.py -d dataset                              one folder per class; downloads ImageNet weights
  python train_mask_detector.py -d dataset photos --only photos=train.txt      and annotated photos (Pascal VOC), a part of them
  python train_mask_detector.py -d my_faces --weights mask_detector.keras -m mine.keras     start from a trained model
  python train_mask_detector.py -d photos faces --rename face=without_mask hat= --limit faces=500     join other data sets

Classes are the names of the folders, or of the annotated objects; a class named background is for crops that show no face.
Objects named ignore, or marked difficult, are not learnt from. A data set with the splits train, val and test keeps them.
Writes the model (.keras), the same model for detection (.onnx beside it) and a plot. KERAS_BACKEND=tensorflow, torch or jax
selects the backend. Ctrl-C ends fine-tuning early, with the best model so far; the same command with --resume resumes it,
also after a crash. Exit code: 0 done, also if ended early, 1 if an input is at fault, 2 for a wrong command line, 130 after
Ctrl-C before fine-tuning.
"""

import argparse
import logging
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError

logger = logging.getLogger("facemask")

SETTINGS = (
    "weights",
    "keep_classes",
    "size",
    "margin",
    "epochs",
    "batch_size",
    "learning_rate",
    "mixed_precision",
    "seed",
)  # to resume


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "-d", "--dataset", nargs="+", type=Path, required=True, metavar="FOLDER",
        help="data sets: one folder per class, or photos annotated in Pascal VOC, YOLO, COCO or CSV",
    )  # fmt: skip
    options.add_only_argument(parser)
    options.add_rename_argument(parser)
    parser.add_argument(
        "--limit", nargs="+", action="extend", type=options.folder_limit, default=[], metavar="FOLDER=N",
        help="use at most N faces of this folder, chosen by --seed; a data set, or a folder in one (default: all faces)",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--model", type=Path, metavar="FILE",
        help="model to write, .keras (default: mask_detector.keras, with a number if this exists)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="without -m: replace mask_detector.keras")
    parser.add_argument("-p", "--plot", type=Path, default="plot.png", help="plot to write: loss, accuracy, confusion matrix")
    parser.add_argument(
        "-f", "--face", type=Path, default=options.DEFAULT_FACE_DETECTOR,
        help="face detector, to cut out the faces of class folders (default: face_detector)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", default="imagenet",
        help="weights to start from: imagenet (downloaded), a .weights.h5 of MobileNetV2(include_top=False), or a trained .keras",
    )  # fmt: skip
    parser.add_argument(
        "--keep-classes", action=argparse.BooleanOptionalAction, default=True,
        help="keep the classes of a trained --weights of which the data sets have no face",
    )  # fmt: skip
    parser.add_argument("--size", type=int, choices=(96, 128, 160, 192, 224), default=128, help="side of the input, px")
    parser.add_argument(
        "--margin", type=options.probability, default=0.0, help="kept around a face on each side, as a part of its longer side"
    )
    parser.add_argument(
        "-e", "--epochs", type=options.natural_int, default=14,
        help="epochs of fine-tuning, of which the best is kept; 0 trains only the head",
    )  # fmt: skip
    parser.add_argument("-b", "--batch-size", type=options.positive_int, default=64, help="faces per step of fine-tuning")
    parser.add_argument(
        "--learning-rate", type=options.positive_number, default=2e-4, help="maximum learning rate of Adam in fine-tuning"
    )
    parser.add_argument(
        "--interpolate", type=options.probability, default=1.0, metavar="SHARE",
        help="share of the fine-tuned weights in the model, 0 to 1; the rest are the weights before fine-tuning: less than 1 "
        "keeps more of what a trained --weights knew (Wortsman et al., 2022)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="resume the fine-tuning of this model that was interrupted")
    parser.add_argument(
        "--mixed-precision", action=argparse.BooleanOptionalAction,
        help="fine-tune in float16, faster on a GPU (default: only with a GPU)",
    )  # fmt: skip
    options.add_max_pixels(parser)
    parser.add_argument("--workers", type=options.positive_int, default=2, help="threads that prepare faces")
    parser.add_argument("--seed", type=options.natural_int, default=42, help="seed of split, --limit, shuffling and augmentation")
    return parser


def train(args: argparse.Namespace) -> int:
    check_arguments(args)
    names = options.listed_names(args.only, args.dataset)

    from facemask.models.face_detectors import load_face_detector
    from facemask.parallel import thread_budget
    from facemask.training.dataset import class_names
    from facemask.training.prepare import cut_faces, read_photos, split_by_similarity

    photos = read_photos(names, dict(args.rename), args.limit, args.seed)
    shown = class_names(photos)
    workers, threads = thread_budget()
    face_detector = load_face_detector(args.face, threads=threads)

    import keras

    from facemask.models.keras_network import build_network
    from facemask.models.model_info import ModelInfo
    from facemask.training.batches import FaceBatches
    from facemask.training.checkpoint import open_checkpoint, record_settings
    from facemask.training.fit import has_gpu
    from facemask.training.onnx_export import save_detector
    from facemask.training.phases import Recipe, train_network
    from facemask.training.quantize import write_int8_classifier
    from facemask.training.report import faces_to_test, kept_classes, knows_classes, predict_classes, split_report

    start = time.perf_counter()
    if args.mixed_precision is None:
        args.mixed_precision = has_gpu()
    checkpoint = open_checkpoint(args.model, record_settings(args, SETTINGS), resume=args.resume)
    keras.utils.set_random_seed(args.seed)
    classes = kept_classes(args.weights, shown, args.keep_classes)
    info = ModelInfo(tuple(classes), args.size, args.margin)
    network = build_network(info, args.weights)
    crops = cut_faces(photos, face_detector, args.size, workers=workers, max_pixels=args.max_pixels)

    logger.info("features of the frozen backbone, once for all %d crops (%s backend)", len(crops), keras.backend.backend())
    with redirect_stdout(sys.stderr):  # Keras' progress bars
        features = network.features.predict(FaceBatches(crops, info, args.batch_size))
    split, groups = split_by_similarity(features, crops, shown, args.seed)
    print(f"\n{split_report(crops, split, groups, shown)}\n", flush=True)

    test = faces_to_test(crops, split)
    before = predict_classes(network, test, args.batch_size) if knows_classes(args.weights, classes) else None
    recipe = Recipe(
        args.epochs, args.batch_size, args.learning_rate, args.interpolate, args.mixed_precision, args.seed, args.workers
    )
    histories = train_network(network, crops, features, split, recipe, checkpoint)
    onnx_path = save_detector(network.model, info, args.model)
    int8_path = write_int8_classifier(onnx_path, [crops[index] for index in split.train], info, args.seed)
    if histories.is_complete:
        checkpoint.remove()
    report_test(network, test, histories, before, args)
    minutes = (time.perf_counter() - start) / 60
    logger.info("saved to %s, %s, %s and %s; %.1f minutes", args.model, onnx_path, int8_path, args.plot, minutes)
    return DONE


def report_test(network, test: list, histories, before, args: argparse.Namespace) -> None:
    """Print how the network does on the faces to test, and did `before` (None: unknown), and write the plot."""
    from facemask.evaluation.plots import plot_training
    from facemask.training.report import accuracy_report, accuracy_with_interval, predict_classes

    classes = network.info.classes
    predicted = predict_classes(network, test, args.batch_size)
    report, confusion = accuracy_report(test, predicted, classes, args.dataset, before)
    unseen = "the model at the start may have learnt" if args.weights.endswith(".keras") else "no epoch has learnt"
    print(f"Faces of the test split, which {unseen}:\n\n{report}")
    print(f"\n{accuracy_with_interval(confusion, classes)}")
    plot_training(args.plot, histories.head, histories.fine_tuning, confusion, classes)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise InputError if a file cannot be read or written as the arguments say."""
    from facemask.io.outputs import check_outputs
    from facemask.models.int8 import int8_file
    from facemask.training.model_name import default_model

    args.model = args.model or default_model(overwrite=args.overwrite, resume=args.resume)
    if args.model.suffix != ".keras":
        raise InputError(f"{args.model}: the name of a model must end in .keras; give -m NAME.keras")
    if args.weights != "imagenet" and not Path(args.weights).is_file():
        raise InputError(f"{args.weights}: no such file; give --weights imagenet, a .weights.h5 or a .keras file")
    options.check_plot_name(args.plot)
    weights = [] if args.weights == "imagenet" else [Path(args.weights)]
    onnx_path = args.model.with_suffix(".onnx")
    check_outputs((args.model, onnx_path, int8_file(onnx_path), args.plot), weights)


def main(argv: list[str] | None = None) -> int:
    return run(train, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
