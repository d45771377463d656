"""The table "Datasets" of docs/errors.md, row by row."""

import os
from pathlib import Path

import pytest

from facemask.io.find_images import find_images
from tests.faults.fault_table import ASTRONAUT, MODEL, FaultTable, Run, needs_linux, on_keras, slow, write
from tests.helpers import write_class_folders

pytestmark = needs_linux
TABLE = FaultTable("Datasets")


def training(*classes: str, count: int = 1) -> Run:
    """Train on folders of those classes, each with copies of a picture."""
    import train_mask_detector

    for label in classes:
        for number in range(count):
            write(f"data/{label}/{number}.jpg", ASTRONAUT.read_bytes())
    return Run(["-d", "data", "-m", "m.keras", "--weights", str(MODEL)], script=train_mask_detector.main)


@TABLE.case("no such folder")
@on_keras
def no_dataset(folder):
    return training()


@TABLE.case("one class")
@on_keras
def one_class(folder):
    return training("with_mask")


@TABLE.case("a class without photos")
@on_keras
def empty_class(folder):
    Path("data/without_mask").mkdir(parents=True)
    return training("with_mask")


@TABLE.case("classes one folder deeper")
@on_keras
def nested(folder):
    return training("train/with_mask", "train/without_mask")


@TABLE.case("labels that differ only in case")
@on_keras
def label_case(folder):
    return training("With_Mask", "with_mask", "without_mask")


@TABLE.case("one photo per class")
@on_keras
def one_photo(folder):
    return training("with_mask", "without_mask")


@TABLE.case("100,000 photos of one class: counted in seconds")
@on_keras
@slow
def many(folder):
    Path("data/with_mask").mkdir(parents=True)
    for number in range(100_000):
        os.close(os.open(f"data/with_mask/{number}.jpg", os.O_CREAT | os.O_WRONLY))

    def check() -> None:
        assert len(find_images(["data"])) == 100_000

    run = training()
    return Run(run.arguments, script=run.script, after=check)


@TABLE.case("photos that cannot be read: counted, listed, left where they are")
@on_keras
def unreadable(folder):
    import train_mask_detector

    write_class_folders(folder / "data")
    write("data/with_mask/bad.jpg", b"text")

    def check() -> None:
        assert Path("data/with_mask/bad.jpg").read_bytes() == b"text"

    arguments = ["-d", "data", "-m", "m.keras", "--weights", str(MODEL), "-e", "0", "--size", "96"]
    return Run(arguments, script=train_mask_detector.main, after=check)


def annotated(text: str) -> Run:
    """Evaluate on an annotated photo."""
    import evaluate_mask_detector

    write("photos/images/a.jpg", ASTRONAUT.read_bytes())
    write("photos/annotations/a.xml", text.encode())
    return Run(["-d", "photos"], script=evaluate_mask_detector.main)


XML = "<annotation><object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"


@TABLE.case("an annotation that is not XML")
@on_keras
def no_xml(folder):
    return annotated("text")


@TABLE.case("an annotation with entities: none is expanded")
@on_keras
def entities(folder):
    bomb = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>' + XML.format(name="&b;", x1=1)
    outside = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + XML.format(name="&a;", x1=1)
    return [annotated(bomb), annotated(outside)]


@TABLE.case("an annotation with a box that is not a number")
@on_keras
def no_number(folder):
    return annotated(XML.format(name="with_mask", x1="nan"))


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
