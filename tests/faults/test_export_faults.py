"""The table "Export" of docs/errors.md, row by row."""

import shutil

import pytest
from PIL import Image

pytest.importorskip("onnx")

from facemask import __main__ as command
from facemask.models import default_files
from facemask.models.center_face import CenterFaceDetector
from tests.faults.fault_table import MODEL, ONNX, FaultTable, Run, encoded, needs_linux, write
from tests.helpers import ROOT

pytestmark = [needs_linux, pytest.mark.training]
TABLE = FaultTable("Export")
FACES = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME


def export(*arguments: str, form: str = "onnx", output: str = "new") -> Run:
    return Run(["export", "--format", form, "-o", output, *arguments], script=command.main)


@TABLE.case("a --size that is not a multiple of 32")
def odd_size(folder):
    return export("--size", "300")


@TABLE.case("an output folder that exists")
def folder_exists(folder):
    (folder / "out").mkdir()
    return export(output="out")


@TABLE.case("a missing model")
def missing_model(folder):
    return export("-m", "m.keras")


@TABLE.case("a .keras without its .onnx")
def keras_alone(folder):
    shutil.copy(MODEL, "m.keras")
    return export("-m", "m.keras")


@TABLE.case("a .keras beside the .onnx of another model")
def keras_of_another(folder):
    shutil.copy(FACES, "m.keras")  # any file of this project with its checksum
    shutil.copy(ONNX, "m.onnx")
    return export("-m", "m.keras")


@TABLE.case("another network as the model")
def detector_as_model(folder):
    shutil.copy(FACES, "faces.onnx")
    return export("-m", "faces.onnx")


@TABLE.case("a missing face detector")
def missing_detector(folder):
    return export("-f", "none.onnx")


@TABLE.case("another network as the face detector")
def model_as_detector(folder):
    shutil.copy(ONNX, "m.onnx")
    return export("-f", "m.onnx")


@TABLE.case("photos without faces, for 8-bit integers")
def no_faces(folder):
    write("photos/a.jpg", encoded("JPEG", Image.new("RGB", (200, 200))))
    return export("-d", "photos", form="tflite-int8")


@TABLE.case("an installed program without photos, for 8-bit integers")
def installed_without_photos(folder, monkeypatch):
    monkeypatch.setattr(default_files, "IS_INSTALLED", True)
    return export(form="tflite-int8")


def test_every_row_has_its_case():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.partial").exists()
