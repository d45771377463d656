"""The annotation of one photo as text: Pascal VOC XML, and YOLO's lines."""

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

import numpy as np

LabelledBox = tuple[str, Sequence[float] | np.ndarray]  # class name, and x1, y1, x2, y2 in pixels


def voc_xml(name: str, width: int, height: int, faces: Iterable[LabelledBox], ignore: str = "") -> str:
    """Return a photo's annotation in Pascal VOC XML; faces with the label `ignore` are marked difficult."""
    root = ElementTree.Element("annotation")
    _add(root, "folder", "images")
    _add(root, "filename", name)
    size = _add(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, key, str(value))
    for label, box in faces:
        item = _add(root, "object")
        _add(item, "name", label)
        _add(item, "difficult", str(int(label == ignore)))
        sides = _add(item, "bndbox")
        for key, side in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            _add(sides, key, f"{float(side):.2f}".rstrip("0").rstrip("."))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    element.text = text
    return element


def yolo_lines(width: int, height: int, faces: Iterable[LabelledBox], classes: Sequence[str]) -> str:
    """Return one line per face: the number of its class, centre and size of its box as parts of the photo's sides."""
    lines = []
    for label, (x1, y1, x2, y2) in faces:
        values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(f"{classes.index(label)} " + " ".join(f"{value:.6f}" for value in values) + "\n")
    return "".join(lines)
