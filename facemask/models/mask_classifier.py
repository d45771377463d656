"""Tell for each face whether it wears a mask."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import crop_face
from facemask.errors import InputError
from facemask.models.model_file import read_model, read_onnx_metadata
from facemask.models.model_info import METADATA_NAME, SHA256_NAME, ModelInfo
from facemask.models.onnx_session import open_onnx
from facemask.types import Box

logger = logging.getLogger(__name__)


class MaskClassifier:
    """A trained network with what must be known of it; `backend` says what runs it."""

    BATCH_SIZE = 8  # faces a network call: bounds the memory for pictures of crowds

    def __init__(self, info: ModelInfo, run: Callable[[np.ndarray], np.ndarray], backend: str) -> None:
        """`run` takes float32 (n, 3, size, size) RGB 0..255 and returns (n, classes) probabilities."""
        self.info, self.backend = info, backend
        self._run = run

    @classmethod
    def load(cls, path: str | Path, threads: int = 0) -> "MaskClassifier":
        """Load a `.keras` or `.onnx` model that train_mask_detector.py wrote.

        For a `.keras` file the `.onnx` beside it is run if it was made from that very file; else Keras runs it, with a
        warning. An `.onnx` is run by onnxruntime where installed, with `threads` as `open_onnx` takes them, else by
        cv2.dnn. Raises InputError if the file is missing, broken or no such model.
        """
        path = Path(path)
        if path.suffix not in (".keras", ".onnx") or not path.is_file():
            reason = "no such file" if not path.is_file() else "not a .keras or .onnx file"
            raise InputError(f"{path}: {reason}; give -m the model that train_mask_detector.py wrote")
        if path.suffix == ".onnx":
            return cls._load_onnx(path, threads)
        model = read_model(path)
        info = ModelInfo.of_keras(path, model)
        onnx_path = path.with_suffix(".onnx")
        reason = f"there is no {onnx_path.name}"
        if onnx_path.is_file():
            reason = f"{onnx_path.name} is broken or was made from another file"
            with suppress(InputError):
                return cls._load_onnx(onnx_path, threads, made_from=hashlib.sha256(model).hexdigest())
        logger.warning("running %s with Keras, which starts slowly: %s; python -m facemask %s makes it", path, reason, path)
        return cls._load_keras(path, info)

    def classify(self, image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
        """Return the probabilities (n, classes) of each box (x1, y1, x2, y2 px) of `image`, uint8 (H, W, 3) BGR."""
        size, margin = self.info.input_size, self.info.margin
        probabilities = [np.empty((0, len(self.info.classes)), np.float32)]
        for start in range(0, len(boxes), self.BATCH_SIZE):
            crops = [crop_face(image, box, size, margin) for box in boxes[start : start + self.BATCH_SIZE]]
            try:
                part = self._run(cv2.dnn.blobFromImages(crops, swapRB=True))
            except Exception as error:  # as in _checked
                raise InputError(f"the mask classifier: cannot see {len(crops)} faces at once; train it anew") from error
            if part.shape != (len(crops), len(self.info.classes)) or not np.isfinite(part).all():
                raise InputError("the mask classifier: gives no probabilities of some faces; train it anew")
            probabilities.append(part)
        return np.concatenate(probabilities)

    @classmethod
    def _load_onnx(cls, path: Path, threads: int, made_from: str | None = None) -> "MaskClassifier":
        """Load an `.onnx` file, which must have been made from the `.keras` file of that SHA-256, if one is given."""
        model = read_model(path)
        try:
            metadata = read_onnx_metadata(BytesIO(model))
            info = ModelInfo.from_json(metadata[METADATA_NAME])
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not a model written by train_mask_detector.py; train it anew") from error
        if made_from is not None and metadata.get(SHA256_NAME) != made_from:
            raise InputError(f"{path}: was made from another .keras file; python -m facemask makes it anew")
        return cls(info, *open_onnx(model, path, threads))._checked(path)

    @classmethod
    def _load_keras(cls, path: Path, info: ModelInfo) -> "MaskClassifier":
        try:
            from keras.ops import convert_to_numpy

            from facemask.models.keras_network import load_keras
        except ImportError as error:
            raise InputError(
                f"{path}: needs Keras, or the .onnx made from it beside it; pip install -r requirements.txt, "
                f"then python -m facemask {path}"
            ) from error
        network = load_keras(path).model

        def run(images: np.ndarray) -> np.ndarray:
            return convert_to_numpy(network(images.transpose(0, 2, 3, 1), training=False))

        return cls(info, run, "Keras")._checked(path)

    def _checked(self, path: Path) -> "MaskClassifier":
        """Return self if the network's output fits its metadata, shown black and noise; else raise InputError."""
        size = self.info.input_size
        images = np.zeros((2, 3, size, size), np.float32)
        images[1] = np.random.default_rng(0).uniform(0, 255, images[1].shape)
        try:
            probabilities = np.asarray(self._run(images), np.float32)
        except Exception as error:  # onnxruntime's and OpenCV's have no common base below it
            raise InputError(f"{path}: cannot see faces of {size} x {size} px; train it anew") from error
        if probabilities.shape != (len(images), len(self.info.classes)):
            received = f"gives {probabilities.shape[1:]} outputs for {len(self.info.classes)} classes"
            raise InputError(f"{path}: {received}; train it anew")
        if not (np.all(probabilities >= 0) and np.all(np.abs(probabilities.sum(axis=1) - 1) < 0.01)):
            raise InputError(f"{path}: its outputs are no probabilities; train it anew")
        return self
