"""The table "Datasets" of docs/errors.md, row by row."""

import os
from pathlib import Path

import pytest

from facemask.io.find_images import find_images
from tests.faults.fault_table import ASTRONAUT, MODEL, FaultTable, Run, assert_absent, needs_linux, on_keras, slow, write
from tests.helpers import write_class_folders

pytestmark = needs_linux
TABLE = FaultTable("Datasets")


def training(*classes: str, count: int = 1) -> Run:
    """Train on folders of those classes, each with copies of an image."""
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


@TABLE.case("an archive that is not unpacked")
@on_keras
def packed(folder):
    import train_mask_detector

    write("data.zip", b"PK\3\4")
    return Run(["-d", "data.zip", "-m", "m.keras", "--weights", str(MODEL)], script=train_mask_detector.main)


@TABLE.case("classes one folder deeper, in several folders")
@on_keras
def nested(folder):
    return training("faces/with_mask", "more/without_mask")


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


@TABLE.case("a class called as a part of a data set: train, val, valid, test, images, labels")
@on_keras
def reserved_name(folder):
    return training("train", "val")


@TABLE.case("splits with photos in place of class folders beside others with class folders")
@on_keras
def half_of_the_splits(folder):
    return training("train/with_mask", "train/without_mask", "test")


@TABLE.case("a split without one of the classes")
@on_keras
@slow
def split_without_class(folder):
    return training("train/with_mask", "train/without_mask", "val/without_mask", "test/with_mask", "test/without_mask")


def labelled(label: str, names: str = "names: [bare, mask]\n") -> Run:
    """Train on a photo with a YOLO label."""
    write("data/images/a.jpg", ASTRONAUT.read_bytes())
    write("data/labels/a.txt", label.encode())
    if names:
        write("data/data.yaml", names.encode())
    return training()


@TABLE.case("YOLO labels without data.yaml or classes.txt")
@on_keras
def no_class_names(folder):
    return labelled("0 0.5 0.5 0.1 0.1", names="")


@TABLE.case("a YOLO label of a class that data.yaml does not have")
@on_keras
def unknown_class(folder):
    return labelled("2 0.5 0.5 0.1 0.1")


@TABLE.case("a YOLO label in pixels")
@on_keras
def yolo_pixels(folder):
    return labelled("0 40 30 20 20")


@TABLE.case("a data.yaml that names code: nothing is run")
@on_keras
def code_in_yaml(folder):
    run = labelled("0 0.5 0.5 0.1 0.1", names="names: !!python/object/apply:os.system ['touch owned']\n")
    return Run(run.arguments, script=run.script, after=lambda: assert_absent("owned"))


COCO = '{"images": [{"id": 1, "file_name": "../secret.jpg"}], "categories": [], "annotations": %s}'


@TABLE.case("COCO JSON that names a photo outside of the folder")
@on_keras
def coco_outside(folder):
    write("secret.jpg", ASTRONAUT.read_bytes())
    write("data/a.json", (COCO % "[]").encode())
    return training()


@TABLE.case("COCO JSON nested 100,000 deep")
@on_keras
def coco_deep(folder):
    write("data/a.json", (COCO % ("[" * 100_000)).encode())
    return training()


@TABLE.case("a CSV row with a box that is not a number")
@on_keras
def csv_box(folder):
    write("data/labels.csv", b"image,label,xmin,ymin,xmax,ymax\na.jpg,with_mask,1,2,x,4\n")
    return training()


@TABLE.case("a row of Roboflow's `_classes.csv` without 0 or 1 for each class")
@on_keras
def one_hot_row(folder):
    write("data/train/_classes.csv", b"filename, with_mask, without_mask\na.jpg, 1, 2\n")
    return training()


@TABLE.case("a CSV file whose columns are not known beside class folders: not used")
@on_keras
def unknown_columns(folder):
    write("data/list.csv", b"name,kind\n0.jpg,with_mask\n")
    return training("with_mask")


@TABLE.case("photos that the annotations do not name: counted")
@on_keras
def unnamed_photos(folder):
    write("data/a.jpg", ASTRONAUT.read_bytes())
    write("data/b.jpg", ASTRONAUT.read_bytes())
    write("data/list.csv", b"filename,class\na.jpg,with_mask\n")
    return training()


@TABLE.case("photos beside and below class folders: counted")
@on_keras
def misplaced_photos(folder):
    write("data/b.jpg", ASTRONAUT.read_bytes())
    write("data/with_mask/more/c.jpg", ASTRONAUT.read_bytes())
    return training("with_mask")


@TABLE.case("files that are not images in a class folder: counted")
@on_keras
def other_files(folder):
    write("data/with_mask/a.doc", b"text")
    write("data/with_mask/b.mp4", b"text")
    return training("with_mask")


@TABLE.case("photos that are links out of the data set: read, and counted")
@on_keras
def linked_photos(folder):
    run = training("with_mask")
    write("elsewhere/b.jpg", ASTRONAUT.read_bytes())
    Path("data/with_mask/b.jpg").symlink_to(Path("elsewhere/b.jpg").resolve())
    return run


def command(*arguments: str) -> Run:
    """Run a command of the package."""
    import facemask.__main__

    return Run(list(arguments), script=facemask.__main__.main)


@TABLE.case("`convert` into a folder that exists")
@on_keras
def convert_over(folder):
    training("with_mask", "without_mask")
    Path("out").mkdir()
    return command("convert", "data", "out", "--format", "csv")


@TABLE.case("`review` of a folder without annotations")
@on_keras
def review_class_folders(folder):
    training("with_mask")
    return command("review", "data")


@TABLE.case("`review` of a folder whose state is corrupt")
@on_keras
def review_corrupt(folder):
    write("data/images/a.jpg", ASTRONAUT.read_bytes())
    write("data/annotations/a.xml", XML.format(name="with_mask", x1=1).encode())
    write("data/review.json", b"[1]")
    return command("review", "data")


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
