"""What programs call: load the shipped networks, draw detections, hand them to supervision."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facemask.boxes import MAX_FACES
from facemask.detector import MaskDetector
from facemask.drawing import draw_tracked
from facemask.models.center_face import CenterFaceDetector
from facemask.models.default_files import FACE_DETECTOR, MASK_CLASSIFIER
from facemask.models.devices import AUTO, Device, load_on
from facemask.models.face_detectors import load_face_detector
from facemask.models.mask_classifier import MaskClassifier
from facemask.types import Detection

if TYPE_CHECKING:
    import supervision


def load_detector(
    model: str | Path = MASK_CLASSIFIER,
    face_detector: str | Path = FACE_DETECTOR,
    *,
    size: int | None = None,
    tiles: bool = True,
    check_turns: bool = True,
    max_faces: int = MAX_FACES,
    threads: int = 0,
    device: str = AUTO,
) -> MaskDetector:
    """Load both networks, by default the shipped ones.

    `model` is a mask classifier, `.onnx` or `.keras`; `face_detector` is an `.onnx` file, or a folder with ours. `size` is
    the longest side in px to which the face detector scales an image (None: 576). `tiles` is whether it infers parts with
    small faces again, enlarged and in tiles. `check_turns` is whether images are turned upright that show more faces turned
    by 90, 180 or 270 degrees. res10 does neither. At most `max_faces` are returned for one image, the most confident ones.
    `threads` is how many each network computes with (0: one per core). `device` is a name of docs/devices.md; "auto" is the
    best one here. Raises InputError if a file is missing, corrupt or another network, or if the device is not there.
    """

    def load(chosen: Device) -> MaskDetector:
        faces = load_face_detector(face_detector, size, tiles, threads, max_faces, chosen)
        # In tiles, a check for turns would take longer than the detection, and its small images show the same.
        turned_faces = replace(faces, tiles=False) if check_turns and isinstance(faces, CenterFaceDetector) else None
        return MaskDetector(faces, MaskClassifier.load(model, threads, chosen), turned_faces)

    return load_on(device, load)


def annotate(image: np.ndarray, detections: Sequence[Detection]) -> np.ndarray:
    """Return a copy of `image`, uint8 (H, W, 3) BGR, with a box and a label on each face, and its track ID if it has one."""
    return draw_tracked(image, detections)


def to_supervision(detections: Sequence[Detection]) -> "supervision.Detections":
    """Return detections as supervision's type, for its annotators, zones and sinks.

    `class_id` is the index of the label among the model's classes; `tracker_id` is the track ID, -1 for a face without
    one, or None if no face has one. `data` has `class_name` and `probability`, one per face. Needs the extra "video".
    """
    import supervision

    if not detections:
        return supervision.Detections.empty()
    tracks = [detection.track for detection in detections]
    return supervision.Detections(
        xyxy=np.array([detection.box for detection in detections], np.float32),
        confidence=np.array([detection.confidence for detection in detections], np.float32),
        class_id=np.array([list(detection.probabilities).index(detection.label) for detection in detections]),
        tracker_id=np.array([-1 if track is None else track for track in tracks]) if any(tracks) else None,
        data={
            "class_name": np.array([detection.label for detection in detections]),
            "probability": np.array([detection.probability for detection in detections], np.float32),
        },
    )
