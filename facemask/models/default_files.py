"""The model files that come with the program: in a checkout beside the scripts, after installation within the package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = PACKAGE / "networks"  # pyproject.toml puts the networks there in a wheel; a checkout has no such folder
IS_INSTALLED = INSTALLED.is_dir()
FOLDER = INSTALLED if IS_INSTALLED else PACKAGE.parent
# A wheel has the .onnx alone, as detection runs that one.
MASK_CLASSIFIER = FOLDER / ("mask_detector.onnx" if IS_INSTALLED else "mask_detector.keras")
FACE_DETECTOR = FOLDER / "face_detector"
