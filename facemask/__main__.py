"""Try detection in a page, convert data sets, correct labels, make of Keras models what detection runs, export the networks.

  python -m facemask app                                a page for images and the camera of a browser
  python -m facemask convert IN OUT --format yolo       a data set in any format to another: yolo, coco, voc, csv, folders
  python -m facemask import OLD.h5 --classes with_mask without_mask --size 224 --scale tutorial -m mine.keras
                                                        another program's Keras MobileNetV2
  python -m facemask average A.keras B.keras -m C.keras   the mean of the weights of models that were trained one from another
  python -m facemask refit A.keras --faces photos -m B.keras   the last layer of a model fitted anew to more photos, in minutes
  python -m facemask select results/ -n 200 -o to_review/   of detect_mask_archive.py's results the images worth labelling
  python -m facemask review FOLDER                      correct the labels of a folder of --collect, in the browser
  python -m facemask export --format litert -o phone/   both networks for phones, Edge TPUs and other runtimes
  python -m facemask mask_detector.keras                writes mask_detector.onnx beside it

`python -m facemask app -h`, `convert -h`, `import -h`, `average -h`, `refit -h`, `select -h`, `review -h` and `export -h` list
their options.
"""

import argparse
import logging
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, run, stop_on_signals
from facemask.errors import InputError

logger = logging.getLogger("facemask")

POLL = 0.5  # s
SIZE_MULTIPLE = 32  # px, of the face detector's input
CALIBRATED = "tflite-int8"  # the format whose ranges come from photos


def export(args: argparse.Namespace) -> int:
    from facemask.models.keras_network import load_keras
    from facemask.training.onnx_export import export_onnx

    network = load_keras(args.model)
    print(f"saved to {export_onnx(network.model, network.info, args.model)}")
    return DONE


def export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m facemask", description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "model",
        type=Path,
        help="model that train_mask_detector.py wrote, .keras; or app, convert, import, average, refit, select, review or export",
    )
    return parser


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of `python -m facemask NAME`."""
    return argparse.ArgumentParser(
        prog=f"python -m facemask {name}", description=description, formatter_class=options.HelpFormatter
    )


def add_face_argument(parser: argparse.ArgumentParser, use: str = "") -> None:
    parser.add_argument(
        "-f", "--face", type=Path, default=options.DEFAULT_FACE_DETECTOR, help=f"face detector{use} (default: face_detector)"
    )


def convert(args: argparse.Namespace) -> int:
    from facemask.models.face_detectors import load_face_detector
    from facemask.training.convert import convert

    converted = convert(args.input, args.output, args.format, load_face_detector(args.face))
    if converted.left_out:
        logger.warning("%d photos by class do not show exactly one face: left out", converted.left_out)
    logger.info("%d photos, saved to %s", converted.photos, args.output)
    return DONE


def convert_parser() -> argparse.ArgumentParser:
    parser = command_parser("convert", "Write a data set in another format, into a new folder; photos are copied, splits kept.")
    parser.add_argument("input", type=Path, help="data set: YOLO, COCO, Pascal VOC, CSV, or one folder per class")
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument(
        "--format", choices=("yolo", "coco", "voc", "csv", "folders"), required=True,
        help="format to write; folders: one folder per class, with each face cut out",
    )  # fmt: skip
    add_face_argument(parser, ", which gives photos by class their boxes")
    return parser


def import_model(args: argparse.Namespace) -> int:
    from facemask.models.keras_import import import_network

    check_model_outputs(args, [args.input])
    save(import_network(args.input, args.classes, args.size, args.scale, args.margin), args)
    return DONE


def average_models(args: argparse.Namespace) -> int:
    from facemask.training.average import average

    check_model_outputs(args, args.inputs)
    save(average(args.inputs), args)
    return DONE


def refit_model(args: argparse.Namespace) -> int:
    from facemask.io.find_images import describe_skipped, find_images
    from facemask.models.face_detectors import load_face_detector
    from facemask.training.prepare import read_photos
    from facemask.training.refit import find_faces, load_network, refit

    check_model_outputs(args, [args.input])
    network = load_network(args.input)
    weights, class_weights = dict(args.faces), dict(args.class_weight)
    if unknown := class_weights.keys() - set(network.info.labels):
        names = ", ".join(network.info.labels)
        raise InputError(f"--class-weight {min(unknown)}: the model does not have this class; it has {names}")
    photos = read_photos(options.listed_names(args.only, weights), dict(args.rename), [], seed=0)
    weighted = [(photo, next(weights[folder] for folder in photo.path.parents if folder in weights)) for photo in photos]
    skipped: Counter = Counter()
    unlabelled = find_images(list(map(str, args.unlabelled)), skipped) if args.unlabelled else []
    if skipped:
        logger.warning("not read: %s", describe_skipped(skipped))
    detector = load_face_detector(args.face, tiles=True)
    refit(network, find_faces(weighted, unlabelled, detector, network, class_weights, args.max_pixels))
    save(network, args)
    return DONE


def refit_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "refit",
        "Fit the last layer of a model anew, to faces as detection finds them: in annotated boxes, and in those of detection. "
        "What it knows of the background stays. It takes minutes, and no epochs.",
    )
    parser.add_argument("input", type=Path, metavar="MODEL", help="model that train_mask_detector.py wrote, .keras")
    parser.add_argument(
        "--faces", type=options.weighted_folder, nargs="+", required=True, metavar="FOLDER[=WEIGHT]",
        help="annotated photos or class folders; WEIGHT is that of each face (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--unlabelled", type=Path, nargs="+", default=[], metavar="FOLDER",
        help="other photos, as of things: of what looks like a face in them, the probability of the background is kept "
        "(default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--class-weight", type=options.class_weight, nargs="+", default=[], metavar="NAME=WEIGHT",
        help="weight of each face of a class, times that of its folder (default: 1)",
    )  # fmt: skip
    options.add_only_argument(parser)
    options.add_rename_argument(parser)
    add_face_argument(parser)
    add_output_arguments(parser)
    return parser


def check_model_outputs(args: argparse.Namespace, inputs: list[Path]) -> None:
    """Raise InputError if the files of the model that -m names cannot be written."""
    from facemask.io.outputs import check_outputs
    from facemask.models.int8 import int8_file

    if args.model.suffix != ".keras":
        raise InputError(f"{args.model}: the name of a model must end in .keras; give -m NAME.keras")
    onnx_path = args.model.with_suffix(".onnx")
    check_outputs((args.model, onnx_path, int8_file(onnx_path)), inputs)


def save(network, args: argparse.Namespace) -> None:
    """Write the files of a model: .keras, .onnx and, with -d, .int8.onnx."""
    from facemask.models.int8 import int8_file
    from facemask.training.onnx_export import save_detector

    onnx_path = save_detector(network.model, network.info, args.model)
    saved = [args.model, onnx_path]
    int8_file(onnx_path).unlink(missing_ok=True)  # of a model that had this name
    if args.dataset:
        saved.append(quantize(onnx_path, network.info, args))
    else:
        logger.info("no %s was written: it needs photos, -d FOLDER; detection runs the .onnx", int8_file(onnx_path).name)
    logger.info("saved to %s", ", ".join(map(str, saved)))


def quantize(onnx_path: Path, info, args: argparse.Namespace) -> Path:
    """Write the int8 file, whose ranges come from the faces of -d; return its path."""
    from facemask.models.face_detectors import load_face_detector
    from facemask.parallel import thread_budget
    from facemask.training.formats import read_dataset
    from facemask.training.prepare import cut_faces
    from facemask.training.quantize import write_int8_classifier

    workers, threads = thread_budget()
    photos = [photo for folder in args.dataset for photo in read_dataset(folder)]
    faces = load_face_detector(options.DEFAULT_FACE_DETECTOR, threads=threads)
    crops = cut_faces(photos, faces, info.input_size, workers=workers, max_pixels=args.max_pixels)
    return write_int8_classifier(onnx_path, crops, info, seed=0)


def import_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "import",
        "Make of a Keras model on MobileNetV2, as the well-known tutorial trains it, what detection runs. Only the "
        "numbers in its file are read.",
    )
    parser.add_argument("input", type=Path, help="Keras model: .keras, .h5, or HDF5 with another name, as .model")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="labels of its outputs, in their order; often alphabetical"
    )
    parser.add_argument("--size", type=options.positive_int, required=True, metavar="PX", help="side of its input, px")
    parser.add_argument(
        "--scale", choices=("tutorial", "unit", "none"), required=True,
        help="how images were scaled for it: by preprocess_input to -1..1 (tutorial), to 0..1 (unit), or not",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=options.probability, default=0.0, help="kept around a face on each side, as a part of its longer side"
    )
    add_output_arguments(parser)
    return parser


def average_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "average",
        "Write the mean of the weights of models, as of one before and after fine-tuning: often better than "
        "either, on old photos and on new ones. A file that is given twice counts twice.",
    )
    parser.add_argument("inputs", type=Path, nargs="+", metavar="MODEL", help="models that train_mask_detector.py wrote, .keras")
    add_output_arguments(parser)
    return parser


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", type=Path, required=True, metavar="FILE", help="model to write, .keras")
    parser.add_argument(
        "-d", "--dataset", nargs="+", type=Path, metavar="FOLDER", help="photos of faces, to write the int8 file too"
    )
    options.add_max_pixels(parser)


def review(args: argparse.Namespace) -> int:
    from facemask.training.review import Review, ReviewServer

    faces = Review(args.folder)
    with ReviewServer(faces, args.port) as server:
        keys = ", ".join(f"{number} {name}" for number, name in enumerate(faces.classes, 1))
        logger.info("%d faces, %d done; keys: %s; Delete removes, u takes back", len(faces.faces), faces.done, keys)
        logger.info("open %s; Ctrl-C ends", server.url)
        with stop_on_signals(lambda: threading.Thread(target=server.shutdown).start()):
            server.serve_forever()
    logger.info("%d of %d faces done, saved to %s", faces.done, len(faces.faces), args.folder)
    return DONE


def review_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "review",
        "Correct the labels of a folder of --collect in the browser, one face at a time. Each decision is saved at "
        "once; the page is for this machine alone.",
    )
    parser.add_argument("folder", type=Path, help="folder of --collect, or a data set that convert wrote as voc")
    parser.add_argument("--port", type=options.port, default=0, help="port of the page; 0: any that is free")
    return parser


def export_networks(args: argparse.Namespace) -> int:
    from facemask.export.package import export
    from facemask.io.find_images import find_images
    from facemask.models import default_files

    if args.size % SIZE_MULTIPLE:
        raise InputError(f"--size: {args.size} is not a multiple of {SIZE_MULTIPLE}; give one")
    folders = args.dataset or [default_files.FOLDER / "examples"]
    photos = []
    if args.format == CALIBRATED:
        if not args.dataset and default_files.IS_INSTALLED:
            raise InputError(f"-d: {CALIBRATED} needs photos of faces, from which ranges are taken; give -d FOLDER")
        photos = find_images([str(folder) for folder in folders])
    export(args.format, args.output, args.model, args.face, args.size, photos)
    logger.info("saved to %s; its README.md says how to use it", args.output)
    return DONE


def export_networks_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "export",
        "Write both networks for another runtime into a new folder, each with one fixed input size, with a README of "
        "inputs and outputs and an example that runs them. litert and tflite-int8 need TensorFlow, openvino needs openvino.",
    )
    parser.add_argument(
        "--format", choices=("onnx", "openvino", "litert", CALIBRATED), required=True,
        help=f"format to write; {CALIBRATED}: 8-bit integers alone, for Coral's Edge TPU and the like",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument(
        "--size", type=options.detector_size, default=320, metavar="PX",
        help="side of the face detector's square input, px, a multiple of 32: a larger one finds smaller faces",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--model", type=Path, default=options.DEFAULT_MODEL,
        help=f"mask classifier, .keras (its .onnx is exported) or .onnx (default: {options.DEFAULT_MODEL.name})",
    )  # fmt: skip
    add_face_argument(parser)
    parser.add_argument(
        "-d", "--dataset", nargs="+", type=Path, metavar="FOLDER",
        help=f"photos of faces, from which {CALIBRATED} takes the ranges of values (default: examples)",
    )  # fmt: skip
    return parser


def select_images(args: argparse.Namespace) -> int:
    from facemask.archive.job import cluster, run_units
    from facemask.archive.selection import ThumbnailWorker, choose_unlike, collect, most_uncertain, open_results
    from facemask.archive.sources import find_names
    from facemask.io.collect import Collector

    candidates = most_uncertain(open_results(args.results), args.number)
    find = partial(find_names, column=args.column)
    with cluster(args.address, args.actors) as actors:
        collector = Collector(args.output, list(candidates[0].faces[0].probabilities), limit=None)
        process = partial(run_units, actor=ThumbnailWorker, settings=args.max_pixels, actors=actors)
        chosen = choose_unlike(candidates, args.number, find, process, collector)
    collect(chosen, find, collector, args.max_pixels)
    logger.info(collector.summary())
    return DONE


def select_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "select",
        "Copy the images with the most uncertain labels of an archive's results into a folder for review, with boxes "
        'and labels, no two of them near-duplicates. It needs the extra "archive".',
    )
    parser.add_argument("results", metavar="RESULTS", help="-o of detect_mask_archive.py: a folder, or URI")
    parser.add_argument("-n", "--number", type=options.positive_int, default=200, metavar="N", help="number of images to select")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to write, or to add to")
    options.add_column_argument(parser)
    options.add_ray_arguments(parser)
    options.add_max_pixels(parser)
    return parser


def app(args: argparse.Namespace) -> int:
    if args.tls_key and not args.tls_cert:
        app_parser().error("--tls-key needs --tls-cert")
    from facemask.app.detection import PageDetector
    from facemask.app.server import AppServer
    from facemask.serving.server import open_page

    detector = PageDetector(options.load_detector(args), args.confidence, args.max_pixels)
    stopped = threading.Event()
    address = args.host, args.port
    with (
        open_page(partial(AppServer, detector), address, args.password, args.tls_cert, args.tls_key),
        stop_on_signals(stopped.set),
    ):
        logger.info("Ctrl-C ends")
        while not stopped.wait(POLL):  # without a limit, Windows would not receive Ctrl-C
            pass
    return DONE


def app_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "app",
        "Serve a page: drop images or use the browser's camera, see boxes, labels and counts, download annotated "
        "images, JSON and CSV. Detection runs here, as in detect_mask_image.py; no image is kept.",
    )
    parser.add_argument("--port", type=options.port, default=8000, help="port of the page; 0: any that is free")
    parser.add_argument(
        "--host", type=options.non_empty, default="127.0.0.1", help="address to listen on; 0.0.0.0 is for other machines too"
    )
    options.add_page_arguments(parser)
    options.add_detector_arguments(parser, tiles="auto")
    options.add_turns_argument(parser)
    return parser


COMMANDS = {
    "app": (app, app_parser),
    "export": (export_networks, export_networks_parser),
    "convert": (convert, convert_parser),
    "import": (import_model, import_parser),
    "average": (average_models, average_parser),
    "refit": (refit_model, refit_parser),
    "select": (select_images, select_parser),
    "review": (review, review_parser),
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    script, parser = COMMANDS.get(argv[0] if argv else "", (export, export_parser))
    return run(script, parser().parse_args(argv[script is not export :]))


if __name__ == "__main__":
    sys.exit(main())
