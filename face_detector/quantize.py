#!/usr/bin/env python3
"""Write the face detector with 8-bit integers, which onnxruntime computes in 0.6 of the time.

  python -m face_detector.quantize -d photos --only train.txt     face_detector/masked_faces_ssd.int8.onnx

Detection takes it in place of the float32 file beside it where it can, as long as it was made from that very file. The
photos, of those it was trained on, tell the ranges of the values.
"""

import argparse
import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from facemask.cli import options as cli
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.models.center_face import CenterFaceDetector

logger = logging.getLogger("facemask")

# The layers behind the backbone stay in float32: in integers they cost half a point of face AP (benchmarks/README.md).
FLOAT_LAYERS = ("up", "lateral", "merge", "context", "head", "faces")
LEAST_RANGE = 1e-3  # of the widest channel's: none is enlarged by more than 1 / this


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m face_detector.quantize", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("-d", "--dataset", type=Path, required=True, metavar="FOLDER", help="images/ with annotations/")
    cli.add_only_argument(parser)
    parser.add_argument(
        "-f",
        "--face",
        type=Path,
        default=cli.DEFAULT_FACE_DETECTOR / CenterFaceDetector.FILE_NAME,
        help="face detector in float32 (default: face_detector/masked_faces_ssd.onnx)",
    )
    parser.add_argument("--count", type=cli.positive_int, default=64, help="photos to look at, chosen at random")
    parser.add_argument("--seed", type=cli.natural_int, default=42, help="of their choice")
    return parser


def quantize(args: argparse.Namespace) -> int:
    import numpy as np
    from tqdm import tqdm

    from facemask.io.outputs import atomic_path, check_outputs
    from facemask.models.center_face import int8_file
    from facemask.models.model_file import with_checksum
    from facemask.training.dataset import read_annotated_photos

    if args.face.suffix != ".onnx" or not args.face.is_file():
        raise InputError(f"{args.face}: no such .onnx file; give -f the face detector in float32")
    output = int8_file(args.face)
    check_outputs([output], [args.face])
    photos = read_annotated_photos(args.dataset, cli.read_names(args.only))
    chosen = np.random.default_rng(args.seed).permutation(len(photos))[: args.count]
    paths = tqdm([photos[index].path for index in chosen], unit="photo", disable=None)
    model = to_int8(args.face, see(args.face, paths))
    with atomic_path(output) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))
    logger.info("saved to %s", output)
    return DONE


def see(file: Path, photos: Iterable[Path]) -> list:
    """Return what the detector's network is given when it looks at the photos: float32 (n, 3, H, W) each."""
    from facemask.io.images import read_image

    seen = []
    detector = CenterFaceDetector.load(file)
    run = detector.run

    def see_and_run(images):
        seen.append(images)
        return run(images)

    detector = replace(detector, run=see_and_run)
    for photo in photos:
        detector.detect(read_image(photo))
    return seen


def to_int8(file: Path, inputs: list):
    """Return the network of an ONNX file with its backbone in 8-bit integers, weights by channel; its metadata go along.

    `inputs` are values that it is to be good for, float32 (n, 3, H, W) each.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from facemask.models.model_file import CHECKSUM_NAME, sha256

    class Inputs(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> dict | None:
            images = next(self.left, None)
            return None if images is None else {model.graph.input[0].name: images}

    model = onnx.load(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key != CHECKSUM_NAME}
    equalize(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        equalized, prepared, quantized = (Path(folder) / f"{step}.onnx" for step in ("equalized", "prepared", "quantized"))
        onnx.save(model, equalized)
        quant_pre_process(equalized, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            Inputs(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if node.name.startswith(FLOAT_LAYERS)],
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(quantized)
    onnx.helper.set_model_props(model, metadata | {CenterFaceDetector.SOURCE_NAME: sha256(file)})
    return model


def equalize(model, inputs: list) -> None:
    """Scale the channels between two convolutions so that all span ranges alike; the network computes the same.

    Cross-layer equalization (Nagel et al., 2019, arXiv:1906.04721): integers, one scale for all channels, then serve each
    well. Before a depthwise convolution, whose weights have scales of their own, all channels get one range; before
    another, the ranges of a channel and of its weights are made alike.
    """
    import copy

    import numpy as np
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    consumers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            consumers[name].append(node)
    pairs = []  # a convolution, the values that it hands on, the convolution that alone takes them
    for node in model.graph.node:
        name = node.output[0]
        if [consumer.op_type for consumer in consumers[name]] == ["Relu"]:
            name = consumers[name][0].output[0]
        if node.op_type == "Conv" and [consumer.op_type for consumer in consumers[name]] == ["Conv"]:
            pairs.append((node, name, consumers[name][0]))

    exposed = copy.deepcopy(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for _, name, _ in pairs)
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    highest = [0.0] * len(pairs)
    for images in inputs:
        values = session.run(None, {model.graph.input[0].name: images})
        highest = [np.maximum(before, np.abs(now).max(axis=(0, 2, 3))) for before, now in zip(highest, values, strict=True)]

    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    for (producer, _, consumer), ranges in zip(pairs, highest, strict=True):
        if not ranges.any():
            continue
        scale = _relative(ranges)
        is_depthwise = weights[consumer.input[1]].shape[1] == 1
        if not is_depthwise:
            scale = np.sqrt(scale / _relative(np.abs(weights[consumer.input[1]]).max(axis=(0, 2, 3))))
        weights[producer.input[1]] /= scale[:, None, None, None]
        weights[producer.input[2]] /= scale
        weights[consumer.input[1]] *= scale[:, None, None, None] if is_depthwise else scale[None, :, None, None]
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))


def _relative(ranges):
    """Return ranges (n,) as parts of the widest, LEAST_RANGE at least."""
    import numpy as np

    return np.maximum(ranges / ranges.max(), LEAST_RANGE)


def main(argv: list[str] | None = None) -> int:
    return run(quantize, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
