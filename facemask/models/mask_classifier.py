"""Classify for each face whether it wears a mask."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import crop_face
from facemask.errors import InputError
from facemask.models.devices import CPU, Device, DeviceError, warn_of_other_library
from facemask.models.int8 import prefer_int8
from facemask.models.model_file import ModelFile
from facemask.models.model_info import METADATA_NAME, NOT_OURS, SHA256_NAME, ModelInfo
from facemask.models.onnx_session import open_onnx
from facemask.types import Box

logger = logging.getLogger(__name__)


class MaskClassifier:
    """A trained network with its metadata, `info`; `backend` names the library and device that run it."""

    BATCH_SIZE = 8  # faces a network call: bounds the memory for images of crowds

    def __init__(self, info: ModelInfo, run: Callable[[np.ndarray], np.ndarray], backend: str) -> None:
        """`run` takes float32 (n, 3, size, size) RGB 0..255 and returns (n, classes) probabilities."""
        self.info, self.backend = info, backend
        self._run = run

    @classmethod
    def load(cls, path: str | Path, threads: int = 0, device: Device = CPU) -> "MaskClassifier":
        """Load a `.keras` or `.onnx` model that train_mask_detector.py wrote.

        For a `.keras` file the `.onnx` beside it runs, if it was made from this very file; else Keras does, with a
        warning. For an `.onnx` the `.int8.onnx` beside it runs, as `prefer_int8` says. onnxruntime runs an `.onnx` where
        it is installed, with `threads` and on `device` as in `open_onnx`, else cv2.dnn does. Raises InputError if the file is
        missing, corrupt or not such a model, and DeviceError as `open_onnx` does.
        """
        path = Path(path)
        if path.suffix not in (".keras", ".onnx") or not path.is_file():
            reason = "no such file" if not path.is_file() else "not a .keras or .onnx file"
            raise InputError(f"{path}: {reason}; give -m the model that train_mask_detector.py wrote")
        model = ModelFile.read(path)
        if path.suffix == ".onnx":
            return cls._load_onnx(model, threads, device)
        info = ModelInfo.of_keras(model)
        onnx_path = path.with_suffix(".onnx")
        reason = f"there is no {onnx_path.name}"
        if onnx_path.is_file():
            reason = f"{onnx_path.name} is corrupt or was made from another file"
            try:
                return cls._load_onnx(ModelFile.read(onnx_path), threads, device, made_from=model.sha256)
            except DeviceError:
                raise
            except InputError:
                pass
        logger.warning("running %s with Keras, which starts slowly: %s; python -m facemask %s makes it", path, reason, path)
        warn_of_other_library(device, path.name, "Keras")
        return cls._load_keras(model, info)

    def classify(self, image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
        """Return the probabilities (n, labels) of each box (x1, y1, x2, y2 px) of `image`, uint8 (H, W, 3) BGR.

        The columns are those of `info.labels`, and each row sums to 1. Raises InputError if the network fails.
        """
        return self.classify_and_verify(image, boxes)[0]

    def classify_and_verify(self, image: np.ndarray, boxes: Sequence[Box]) -> tuple[np.ndarray, np.ndarray]:
        """Return what `classify` does, and the probabilities (n,) that the boxes show faces.

        The latter are 1 - P(background), and 1 for a model without that class.
        """
        return self.classify_images([(image, boxes)])[0]

    def classify_images(self, images: Sequence[tuple[np.ndarray, Sequence[Box]]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what `classify_and_verify` does for each image with its boxes; faces of several images share a batch."""
        faces = [(image, box) for image, boxes in images for box in boxes]
        outputs = [np.empty((0, len(self.info.classes)), np.float32)]
        for start in range(0, len(faces), self.BATCH_SIZE):
            outputs.append(self.infer(self.preprocess(faces[start : start + self.BATCH_SIZE])))
        ends = np.cumsum([len(boxes) for _, boxes in images])[:-1]
        return [self.postprocess(rows) for rows in np.split(np.concatenate(outputs), ends)]

    def preprocess(self, faces: Sequence[tuple[np.ndarray, Box]]) -> np.ndarray:
        """Return the crops of faces, each an image, uint8 (H, W, 3) BGR, and a box, as float32 (n, 3, size, size) RGB 0..255."""
        crops = [crop_face(image, box, self.info.input_size, self.info.margin) for image, box in faces]
        return cv2.dnn.blobFromImages(crops, swapRB=True)

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """Run the network on crops (n, 3, size, size); returns its probabilities (n, classes)."""
        try:
            outputs = self._run(inputs)
        except DeviceError:
            raise
        except Exception as error:  # as in _checked
            raise InputError(f"the mask classifier: cannot run on {len(inputs)} faces at once; train it again") from error
        if outputs.shape != (len(inputs), len(self.info.classes)) or not np.isfinite(outputs).all():
            raise InputError("the mask classifier: gives no probabilities of some faces; train it again")
        return outputs

    def postprocess(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split probabilities (n, classes) into those of the labels (n, labels), given a face, and of a face (n,)."""
        background = self.info.background
        if background is None:
            return outputs, np.ones(len(outputs), outputs.dtype)
        labels = np.delete(outputs, background, axis=1)
        total = labels.sum(axis=1, keepdims=True)
        uniform = np.full_like(labels, 1 / labels.shape[1])  # where the network is sure of the background
        return np.divide(labels, total, out=uniform, where=total > 0), np.clip(1 - outputs[:, background], 0, 1)

    @classmethod
    def _load_onnx(cls, model: ModelFile, threads: int, device: Device, made_from: str | None = None) -> "MaskClassifier":
        """Load an `.onnx` file, which must have been made from the `.keras` file of that SHA-256, if one is given."""
        try:
            info = ModelInfo.from_json(model.metadata[METADATA_NAME])
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{model.path}: {NOT_OURS}") from error
        if made_from is not None and model.metadata.get(SHA256_NAME) != made_from:
            raise InputError(f"{model.path}: was made from another .keras file; python -m facemask makes it again")
        chosen = prefer_int8(model, "train_mask_detector.py makes it again; until then remove it", device)
        return cls(info, *open_onnx(chosen, threads, device))._checked(chosen.path)

    @classmethod
    def _load_keras(cls, model: ModelFile, info: ModelInfo) -> "MaskClassifier":
        try:
            from keras.ops import convert_to_numpy

            from facemask.models.keras_network import load_keras
        except ImportError as error:
            raise InputError(
                f"{model.path}: needs Keras, or the .onnx made from it beside it; pip install -r requirements.txt, "
                f"then python -m facemask {model.path}"
            ) from error
        network = load_keras(model).model

        def run(images: np.ndarray) -> np.ndarray:
            return convert_to_numpy(network(images.transpose(0, 2, 3, 1), training=False))

        return cls(info, run, "Keras")._checked(model.path)

    def _checked(self, path: Path) -> "MaskClassifier":
        """Run the network on black and on noise; return self if its output fits its metadata, else raise InputError."""
        size = self.info.input_size
        images = np.zeros((2, 3, size, size), np.float32)
        images[1] = np.random.default_rng(0).uniform(0, 255, images[1].shape)
        try:
            probabilities = np.asarray(self._run(images), np.float32)
        except DeviceError:
            raise
        except Exception as error:  # onnxruntime's and OpenCV's have no common base below it
            raise InputError(f"{path}: cannot run on faces of {size} x {size} px; train it again") from error
        if probabilities.shape != (len(images), len(self.info.classes)):
            received = f"gives {probabilities.shape[1:]} outputs for {len(self.info.classes)} classes"
            raise InputError(f"{path}: {received}; train it again")
        if not (np.all(probabilities >= 0) and np.all(np.abs(probabilities.sum(axis=1) - 1) < 0.01)):
            raise InputError(f"{path}: its outputs are not probabilities; train it again")
        return self
