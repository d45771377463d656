"""Detect faces in images and video, and classify their masks.

    import facemask

    detector = facemask.load_detector()
    for face in detector.detect(facemask.read_image("people.jpg")):
        print(face.label, face.probability, face.box)

docs/api.md has whole programs. Importing this package is cheap: each name below is loaded when it is first used.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it for true; importing it from typing would take longer than the rest
if TYPE_CHECKING:
    from facemask.api import annotate, load_detector, to_supervision
    from facemask.detector import MaskDetector
    from facemask.errors import InputError
    from facemask.io.images import read_image
    from facemask.types import Detection
    from facemask.video.tracker import MaskTracker

__version__ = "2.0.0"
__all__ = [
    "Detection",
    "InputError",
    "MaskDetector",
    "MaskTracker",
    "__version__",
    "annotate",
    "load_detector",
    "read_image",
    "to_supervision",
]

_MODULES = {
    "Detection": "facemask.types",
    "InputError": "facemask.errors",
    "MaskDetector": "facemask.detector",
    "MaskTracker": "facemask.video.tracker",
    "annotate": "facemask.api",
    "load_detector": "facemask.api",
    "read_image": "facemask.io.images",
    "to_supervision": "facemask.api",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'facemask' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
