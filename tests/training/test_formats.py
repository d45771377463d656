"""Data sets as people have them: each format is read into the same photos, written again, and refused in one line."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.training
pytest.importorskip("sklearn")

from facemask.errors import InputError  # noqa: E402
from facemask.training.dataset import AnnotatedPhoto, ClassPhoto  # noqa: E402
from facemask.training.formats import FORMATS, find_dataset, find_format, read_dataset  # noqa: E402

WIDTH, HEIGHT = 80, 40
VOC_XML = (
    "<annotation><object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    "</object></annotation>"
)
CATEGORIES = [{"id": 7, "name": "bare"}, {"id": 9, "name": "mask"}]


def image(path: Path, orientation: int = 1) -> Path:
    """Write a photo of 80 x 40 pixels, upright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    Image.new("RGB", size, (90, 120, 150)).save(path, "JPEG", exif=exif)
    return path


def text(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def rows(photos: list) -> list[tuple]:
    """Return name, split and faces of photos, sorted; the only face of a photo by class has no box."""
    found = []
    for photo in photos:
        faces = (
            [(label, *np.round(box, 1).tolist()) for label, box in photo.faces]
            if isinstance(photo, AnnotatedPhoto)
            else photo.label
        )
        found.append((photo.path.name, photo.split, faces))
    return sorted(found)


def coco(name: str, image: str, face: dict | None = None, **more: object) -> dict:
    face = {"id": 1, "image_id": 1, "category_id": 9, "bbox": [8, 4, 40, 20]} if face is None else face
    return {"images": [{"id": 1, "file_name": image, **more}], "annotations": [face], "categories": CATEGORIES}


FACE = ("mask", 8.0, 4.0, 48.0, 24.0)
LABEL = "1 0.35 0.35 0.5 0.5"  # the same box
YAML = "names: [bare, mask]\n"


def roboflow_yolo(folder: Path) -> None:
    for part in ("train", "valid", "test"):
        image(folder / part / "images" / f"{part}.jpg")
        text(folder / part / "labels" / f"{part}.txt", LABEL)
    text(folder / "data.yaml", YAML + "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\n")


def ultralytics_yolo(folder: Path) -> None:
    for part in ("train", "val", "test"):
        image(folder / "images" / part / f"{part}.jpg")
        text(folder / "labels" / part / f"{part}.txt", LABEL)
    text(
        folder / "a.yaml",
        "path: /content/a\ntrain: images/train\nval: images/val\ntest: images/test\nnames:\n  0: bare\n  1: mask\n",
    )


def cvat_ultralytics(folder: Path) -> None:
    ultralytics_yolo(folder)
    text(folder / "a.yaml", "path: .\ntrain: train.txt\nval: val.txt\nnames: {0: bare, 1: mask}\n")
    text(folder / "train.txt", "images/train/train.jpg\n")


def roboflow_coco(folder: Path) -> None:
    for part in ("train", "valid", "test"):
        image(folder / part / f"{part}.jpg")
        text(folder / part / "_annotations.coco.json", coco(part, f"{part}.jpg"))


def usual_coco(folder: Path) -> None:
    for part in ("train", "val", "test"):
        image(folder / f"{part}2017" / f"{part}.jpg")
        text(folder / "annotations" / f"instances_{part}2017.json", coco(part, f"{part}.jpg"))


def roboflow_voc(folder: Path) -> None:
    for part in ("train", "valid", "test"):
        image(folder / part / f"{part}.jpg")
        text(folder / part / f"{part}.xml", VOC_XML.format("mask", 8, 4, 48, 24))


def voc_devkit(folder: Path) -> None:
    for part in ("train", "val", "test"):
        image(folder / "JPEGImages" / f"{part}.jpg")
        text(folder / "Annotations" / f"{part}.xml", VOC_XML.format("mask", 8, 4, 48, 24))
        text(folder / "ImageSets/Main" / f"{part}.txt", f"{part}\n")


def roboflow_csv(folder: Path) -> None:
    for part in ("train", "valid", "test"):
        image(folder / part / f"{part}.jpg")
        head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        text(folder / part / "_annotations.csv", f"{head}{part}.jpg,80,40,mask,8,4,48,24\n")


def one_csv(folder: Path) -> None:
    lines = ["Image Name;Label;X1;Y1;X2;Y2;Subset"]
    for part in ("train", "val", "test"):
        image(folder / "images" / f"{part}.jpg")
        lines.append(f"C:\\photos\\{part}.jpg;mask;8;4;48;24;{part}")
    text(folder / "labels.csv", "\ufeff" + "\n".join(lines))


def roboflow_classes(folder: Path) -> None:
    """As Roboflow's export "Multi-Label Classification CSV"."""
    for part in ("train", "valid", "test"):
        for name in ("a_jpg.rf.1f", "b_jpg.rf.2f", "both", "none"):
            image(folder / part / f"{part}_{name}.jpg")
        lines = ("a_jpg.rf.1f.jpg, 0, 1", "b_jpg.rf.2f.jpg, 1, 0", "both.jpg, 1, 1", "none.jpg, 0, 0")
        text(folder / part / "_classes.csv", "filename, bare, mask\n" + "".join(f"{part}_{line}\n" for line in lines))
    text(folder / "README.roboflow.txt", "exported")


def test_one_column_per_class_of_roboflow(tmp_path, caplog):
    roboflow_classes(tmp_path)
    assert find_format(tmp_path).name == "csv"
    photos = read_dataset(tmp_path)
    assert sorted((photo.path.name, photo.split, photo.labels) for photo in photos) == sorted(
        (f"{part}_{name}", split, (label,))
        for part, split in (("train", "train"), ("valid", "validation"), ("test", "test"))
        for name, label in (("a_jpg.rf.1f.jpg", "mask"), ("b_jpg.rf.2f.jpg", "bare"))
    )
    for part in ("train", "valid", "test"):
        message = f"{tmp_path}/{part}/_classes.csv: 2 photos are of no class, or of several: not used"
        assert caplog.messages.count(message) == 1
    text(tmp_path / "test/_classes.csv", "filename, bare, mask\ntest_both.jpg, 1, x\n")
    with pytest.raises(InputError, match=r"_classes\.csv: row 2 is not a label \(it must have 0 or 1 for each class\)"):
        read_dataset(tmp_path)


def voc_in_labels(folder: Path) -> None:
    for part in ("train", "val", "test"):
        image(folder / part / "Images" / f"{part}.jpg")
        text(folder / part / "Labels" / f"{part}.xml", VOC_XML.format("mask", 8, 4, 48, 24))


def yolo_lists(folder: Path) -> None:
    """As Darknet and ultralytics take lists of photos, from another computer here."""
    for part in ("train", "val", "test"):
        image(folder / "Images" / f"{part}.jpg")
        text(folder / "Labels" / f"{part}.txt", LABEL)
        text(folder / f"{part}.txt", f"/content/a/Images/{part}.jpg\n")
    text(folder / "data.yaml", YAML + "train: train.txt\nval: ./val.txt\ntest: /content/a/test.txt\n")


def yolo_class_lists(folder: Path) -> None:
    """As labelImg leaves it: the names of classes beside the labels."""
    for part in ("train", "val", "test"):
        image(folder / part / "images" / f"{part}.jpg")
        text(folder / part / "labels" / f"{part}.txt", LABEL)
        text(folder / part / "labels" / "classes.txt", "bare\nmask\n")


def csv_without_suffix(folder: Path) -> None:
    for part in ("train", "val", "test"):
        image(folder / "images" / f"{part}.jpg")
    rows = "".join(f"{part},mask,8,4,48,24,{part}\n" for part in ("train", "val", "test"))
    text(folder / "labels.csv", f"image,label,xmin,ymin,xmax,ymax,split\n{rows}")


def unpacked(folder: Path) -> None:
    roboflow_yolo(folder / "archive" / "Face Masks")
    (folder / "__MACOSX/archive").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (roboflow_yolo, "yolo"), (ultralytics_yolo, "yolo"), (cvat_ultralytics, "yolo"), (roboflow_coco, "coco"), (usual_coco, "coco"),
        (roboflow_voc, "voc"), (voc_devkit, "voc"), (roboflow_csv, "csv"), (one_csv, "csv"), (voc_in_labels, "voc"),
        (yolo_lists, "yolo"), (yolo_class_lists, "yolo"), (csv_without_suffix, "csv"), (unpacked, "yolo"),
    ],
)  # fmt: skip
def test_boxes_and_splits_are_read_as_they_are(tmp_path, make, name):
    make(tmp_path)
    place, kind = find_dataset(tmp_path)
    assert (place, kind.name) == (tmp_path / "archive/Face Masks" if make is unpacked else tmp_path, name)
    photos = read_dataset(tmp_path)
    assert [row[1:] for row in rows(photos)] == [("test", [FACE]), ("train", [FACE]), ("validation", [FACE])]
    assert [photo.path.stem[:2] for photo in photos if photo.split == "validation"] == ["va"]
    assert all(photo.path.is_file() for photo in photos)
    assert len(read_dataset(tmp_path, ["test"])) == 1


def test_splits_of_class_folders_are_read_as_they_are(tmp_path):
    for part in ("Train", "Validation", "Test"):
        for label in ("bare", "mask"):
            image(tmp_path / part / label / f"{label}.jpg")
    photos = read_dataset(tmp_path)
    assert sorted((photo.split, photo.label) for photo in photos) == [
        (split, label) for split in ("test", "train", "validation") for label in ("bare", "mask")
    ]


def test_csv_of_names_and_labels(tmp_path):
    image(tmp_path / "photos/a.jpg")
    image(tmp_path / "photos/b.jpg")
    text(tmp_path / "all.csv", "path,category\nphotos/a.jpg,mask\nphotos/b.jpg,bare\n")
    assert read_dataset(tmp_path) == [
        ClassPhoto(tmp_path / "photos/a.jpg", "mask"),
        ClassPhoto(tmp_path / "photos/b.jpg", "bare"),
    ]


def test_yolo_without_yaml_polygons_confidences_and_photos_without_faces(tmp_path, caplog):
    for name in ("box", "polygon", "confidence", "none"):
        image(tmp_path / "images" / f"{name}.jpg")
    text(tmp_path / "classes.txt", "bare\nmask\n")
    text(tmp_path / "labels/box.txt", LABEL + "\n")
    text(tmp_path / "labels/polygon.txt", "1 0.1 0.2 0.6 0.1 0.5 0.6")
    text(tmp_path / "labels/confidence.txt", LABEL + " 0.9\n")
    with caplog.at_level(logging.INFO):
        assert rows(read_dataset(tmp_path)) == [
            ("box.jpg", "", [FACE]), ("confidence.jpg", "", [FACE]), ("none.jpg", "", []), ("polygon.jpg", "", [FACE]),
        ]  # fmt: skip
    assert f"{tmp_path}: 1 photos have no label file: they count as photos without faces" in caplog.messages


def test_darknet_labels_beside_the_photos(tmp_path):
    """As CVAT's YOLO 1.1: obj.names, obj.data, obj_train_data/."""
    text(tmp_path / "obj.names", "bare\nmask\n")
    text(tmp_path / "obj.data", "classes = 2\nnames = data/obj.names\n")
    text(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n")
    image(tmp_path / "obj_train_data/a.jpg")
    text(tmp_path / "obj_train_data/a.txt", LABEL)
    assert rows(read_dataset(tmp_path)) == [("a.jpg", "train", [FACE])]


def label_studio_yolo(folder: Path) -> None:
    """As its export "YOLO with Images"."""
    image(folder / "images/3f2a-a.jpg")
    text(folder / "labels/3f2a-a.txt", LABEL)
    text(folder / "classes.txt", "bare\nmask\n")
    text(folder / "notes.json", {"categories": CATEGORIES, "info": {"year": 2026, "contributor": "Label Studio"}})


def label_studio_coco(folder: Path) -> None:
    """As its export "COCO with Images": result.json, file names with the folder, backslashes on Windows."""
    image(folder / "images/3f2a-a.jpg")
    text(folder / "result.json", coco("a", "images\\3f2a-a.jpg", width=80, height=40))


def label_studio_voc(folder: Path) -> None:
    """As its export "Pascal VOC XML": Annotations/ beside images/."""
    image(folder / "images/3f2a-a.jpg")
    text(folder / "Annotations/3f2a-a.xml", VOC_XML.format("mask", 8, 4, 48, 24))


def cvat_coco(folder: Path) -> None:
    """As CVAT's "COCO 1.0": annotations/instances_default.json, images/default/."""
    image(folder / "images/default/3f2a-a.jpg")
    text(folder / "annotations/instances_default.json", coco("a", "3f2a-a.jpg", width=80, height=40))


def cvat_voc(folder: Path) -> None:
    """As CVAT's "PASCAL VOC 1.1"."""
    image(folder / "JPEGImages/3f2a-a.jpg")
    text(folder / "Annotations/3f2a-a.xml", VOC_XML.format("mask", "8.0", "4.0", "48.0", "24.0"))
    text(folder / "ImageSets/Main/default.txt", "3f2a-a\n")
    text(folder / "labelmap.txt", "# label:color_rgb:parts:actions\nmask:250,50,83::\n")


@pytest.mark.parametrize("make", [label_studio_yolo, label_studio_coco, label_studio_voc, cvat_coco, cvat_voc])
def test_exports_of_label_tools(tmp_path, make):
    make(tmp_path)
    assert rows(read_dataset(tmp_path)) == [("3f2a-a.jpg", "", [FACE])]


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_yolo_boxes_are_parts_of_the_upright_photo(tmp_path, orientation):
    image(tmp_path / "images/a.jpg", orientation)
    text(tmp_path / "labels/a.txt", LABEL)
    text(tmp_path / "data.yaml", YAML)
    assert rows(read_dataset(tmp_path)) == [("a.jpg", "", [FACE])]


def test_coco_crowds_are_ignored_and_polygons_count_as_boxes(tmp_path):
    image(tmp_path / "images/a.jpg")
    content = coco("a", "a.jpg", width=1, height=1)
    polygon = {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[1, 2, 5, 2], [3, 9, 4, 4]]}
    crowd = {
        "id": 3,
        "image_id": 1,
        "category_id": 7,
        "bbox": [0, 0, 9, 9],
        "iscrowd": 1,
        "segmentation": {"counts": [1], "size": [1, 1]},
    }
    content["annotations"] += [polygon, crowd]
    text(tmp_path / "annotations/x.json", content)
    (photo,) = read_dataset(tmp_path)
    assert photo.labels == ("mask", "bare")
    assert photo.boxes.tolist() == [[8, 4, 48, 24], [1, 2, 5, 9]]
    assert photo.ignored.tolist() == [[0, 0, 9, 9]]


def test_photos_named_and_missing_are_counted(tmp_path, caplog):
    image(tmp_path / "a.jpg")
    text(tmp_path / "labels.csv", "image,label\na.jpg,mask\nb.jpg,bare\n")
    assert len(read_dataset(tmp_path)) == 1
    assert f"{tmp_path}/labels.csv: 1 of 2 photos are not there, as b.jpg: not used" in caplog.messages


def test_photos_with_unknown_suffixes_are_taken_by_content(tmp_path, caplog):
    for name in ("a.jpg", "b.jfif", "c", "d.image"):
        image(tmp_path / "mask" / name)
    image(tmp_path / "bare/a.jpg")
    text(tmp_path / "bare/notes.doc", "text")
    text(tmp_path / "bare/film.mp4", "text")
    text(tmp_path / "bare/a.txt", "a companion")
    photos = read_dataset(tmp_path)
    assert sorted(photo.path.name for photo in photos if photo.label == "mask") == ["a.jpg", "b.jfif", "c", "d.image"]
    assert f"{tmp_path}: 2 files are not images of a known kind: not used (.doc 1, .mp4 1)" in caplog.messages


def test_what_a_mac_and_editors_leave_is_no_photo(tmp_path, caplog):
    for label in ("bare", "mask"):
        image(tmp_path / label / "a.jpg")
        text(tmp_path / label / "._a.jpg", "attributes of a.jpg")
        image(tmp_path / label / ".ipynb_checkpoints/a-checkpoint.jpg")
        image(tmp_path / "__MACOSX" / label / "a.jpg")
        text(tmp_path / label / "Thumbs.db", "thumbnails")
    assert len(read_dataset(tmp_path)) == 2
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def beside_classes(folder: Path) -> str:
    for name in ("mask/a.jpg", "bare/a.jpg", "mask/n95/b.jpg", "c.jpg"):
        image(folder / name)
    return f"{folder}: 2 photos are not directly in the folder of a class, as {folder}/c.jpg: not used"


def unnamed_in_csv(folder: Path) -> str:
    one_csv(folder)
    image(folder / "images/more.jpg")
    return f"{folder}: 1 photos that its files do not name, as {folder}/images/more.jpg: not used"


def unnamed_in_coco(folder: Path) -> str:
    usual_coco(folder)
    image(folder / "val2017/more.jpg")
    return f"{folder}: 1 photos that its files do not name, as {folder}/val2017/more.jpg: not used"


def unlisted_in_yolo(folder: Path) -> str:
    yolo_lists(folder)
    image(folder / "Images/more.jpg")
    return f"{folder}: 1 photos are not in the lists of its YAML file: not used"


def missing_in_list(folder: Path) -> str:
    yolo_lists(folder)
    text(folder / "test.txt", "Images/test.jpg\nImages/gone.jpg\n")
    return f"{folder}/test.txt: 1 of 2 photos are not there: not used"


def no_image_in_voc(folder: Path) -> str:
    voc_devkit(folder)
    text(folder / "JPEGImages/film.mp4", "text")
    return f"{folder}: 1 files are not images of a known kind: not used (.mp4 1)"


def same_stem_in_voc(folder: Path) -> str:
    voc_devkit(folder)
    shutil.copy(folder / "JPEGImages/val.jpg", folder / "JPEGImages/val.JPEG")
    return f"{folder}: 1 photos without an annotation, or annotations without a photo: not used"


def no_image_in_yolo(folder: Path) -> str:
    yolo_lists(folder)
    text(folder / "Images/film.mp4", "text")
    return f"{folder}: 1 files are not images of a known kind: not used (.mp4 1)"


def unknown_columns(folder: Path) -> str:
    image(folder / "bare/a.jpg")
    image(folder / "mask/a.jpg")
    text(folder / "train.csv", "name,x1,x2,y1,y2,kind\na.jpg,1,2,3,4,mask\n")
    return f"{folder}/train.csv: not used: it needs columns for the photo and its label, called as filename and class"


@pytest.mark.parametrize(
    "make",
    [
        beside_classes, unnamed_in_csv, unnamed_in_coco, unlisted_in_yolo, missing_in_list, no_image_in_voc, same_stem_in_voc,
        no_image_in_yolo, unknown_columns,
    ],
)  # fmt: skip
def test_what_is_not_used_is_counted_once(tmp_path, caplog, make):
    message = make(tmp_path)
    with caplog.at_level(logging.INFO):
        assert len({photo.path.stem for photo in read_dataset(tmp_path)}) == (1 if "bare" in os.listdir(tmp_path) else 3)
    assert caplog.messages.count(message) == 1
    assert sum("not used" in each for each in caplog.messages) == 1


def test_links_out_of_the_folder_are_said(tmp_path, caplog):
    folder = tmp_path / "data"
    image(folder / "mask/a.jpg")
    (folder / "mask/b.jpg").symlink_to(image(tmp_path / "elsewhere/b.jpg"))
    read_dataset(folder)
    assert f"{folder}: 1 photos are links to files elsewhere, as {folder}/mask/b.jpg: read from there" in caplog.messages


@pytest.mark.parametrize("kind", ["yolo", "coco", "voc", "csv"])
def test_written_boxes_are_read_again(tmp_path, kind):
    formats = {each.name: each for each in FORMATS}
    photos = [
        AnnotatedPhoto(
            image(tmp_path / f"in/{number}/a.jpg", orientation), np.array([[8, 4, 48.25, 24.5], [1, 1, 3, 3]]), ("mask", "bare"),
            np.array([[0, 0, 5, 5.5]]), split,
        )
        for number, (orientation, split) in enumerate([(1, "train"), (6, "validation"), (1, "test")])
    ]  # fmt: skip
    photos.append(AnnotatedPhoto(image(tmp_path / "in/none.jpg", 3), np.empty((0, 4)), (), split="train"))
    formats[kind].write(photos, tmp_path / "out")
    assert find_format(tmp_path / "out").name == kind
    again = {photo.path.read_bytes() + photo.split.encode(): photo for photo in read_dataset(tmp_path / "out")}
    assert len(again) == 4
    for photo in photos:
        copy = again[photo.path.read_bytes() + photo.split.encode()]
        assert copy.labels == photo.labels
        np.testing.assert_allclose(copy.boxes, photo.boxes, atol=0.01)
        np.testing.assert_allclose(copy.ignored, photo.ignored, atol=0.01)


@pytest.mark.parametrize("kind", ["yolo", "coco", "voc", "csv"])
def test_photos_without_splits_have_none_after_writing(tmp_path, kind):
    formats = {each.name: each for each in FORMATS}
    photo = AnnotatedPhoto(image(tmp_path / "a.jpg"), np.array([[8.0, 4, 48, 24]]), ("mask",))
    formats[kind].write([photo], tmp_path / "out")
    assert rows(read_dataset(tmp_path / "out")) == [("a.jpg", "", [FACE])]


def nothing(folder: Path) -> None:
    pass


def outside(folder: Path) -> None:
    image(folder.parent / "secret.jpg")
    text(folder / "a.json", coco("a", "../secret.jpg"))


def linked(folder: Path) -> None:
    image(folder.parent / "secret.jpg")
    (folder / "images").mkdir()
    (folder / "images/a.jpg").symlink_to(folder.parent / "secret.jpg")
    text(folder / "a.json", coco("a", "a.jpg"))


def deep(folder: Path) -> None:
    text(folder / "a.json", '{"images": [], "categories": [], "annotations": ' + "[" * 100_000)


def not_a_number(folder: Path) -> None:
    image(folder / "a.jpg")
    text(folder / "a.json", coco("a", "a.jpg", {"id": 1, "image_id": 1, "category_id": 9, "bbox": [float("nan"), 1, 2, 3]}))


def unknown_category(folder: Path) -> None:
    text(folder / "a.json", coco("a", "a.jpg", {"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 1, 2, 3]}))


def code_in_yaml(folder: Path) -> None:
    roboflow_yolo(folder)
    text(folder / "data.yaml", "names: !!python/object/apply:os.system ['touch /tmp/owned']\n")


def no_names(folder: Path) -> None:
    roboflow_yolo(folder)
    os.remove(folder / "data.yaml")


def high_class(folder: Path) -> None:
    roboflow_yolo(folder)
    text(folder / "train/labels/train.txt", "\n2 0.5 0.5 0.1 0.1\n")


def pixels(folder: Path) -> None:
    roboflow_yolo(folder)
    text(folder / "train/labels/train.txt", "1 28 14 40 20\n")


def two_lists(folder: Path) -> None:
    yolo_class_lists(folder)
    text(folder / "val/labels/classes.txt", "mask\nbare\n")


def archive(folder: Path) -> None:
    folder.rmdir()
    folder.write_bytes(b"PK\3\4")


def two_data_sets(folder: Path) -> None:
    kaggle = folder / "one" / "Face Mask Dataset"
    for part in ("Train", "Test"):
        image(kaggle / part / "mask/a.jpg")
    image(folder / "two/mask/a.jpg")


def no_split(folder: Path) -> None:
    roboflow_yolo(folder)
    shutil.rmtree(folder / "valid")


def yes_and_no(folder: Path) -> None:
    roboflow_yolo(folder)
    text(folder / "data.yaml", "names: [yes, no]\n")


def csv_box(folder: Path) -> None:
    image(folder / "a.jpg")
    text(folder / "labels.csv", "image,label,xmin,ymin,xmax,ymax\na.jpg,mask,1,2,x,4\n")


def csv_photos(folder: Path) -> None:
    text(folder / "labels.csv", "image,label\na.jpg,mask\n")


def reserved(folder: Path) -> None:
    for name in ("train", "val"):
        image(folder / name / "a.jpg")


def images_and_labels(folder: Path) -> None:
    image(folder / "images/a.jpg")
    image(folder / "labels/a.jpg")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, "{0}: no photos found in its subfolders; expected one folder per class, or photos with annotations in Pascal VOC, YOLO, COCO or CSV"),
        (linked, "{0}/images/a.jpg: {0}/a.json names it, and it is a link out of the data set; copy the photo there"),
        (outside, "{0}/a.json: ../secret.jpg is outside of the data set's folder; copy the photo into {0}"),
        (deep, "{0}/a.json: not COCO annotations (maximum recursion depth exceeded while decoding a JSON array from a unicode string); fix or remove it"),
        (not_a_number, "{0}/a.json: not COCO annotations (NaN is not a number); fix or remove it"),
        (unknown_category, "{0}/a.json: not COCO annotations (5 is missing); fix or remove it"),
        (code_in_yaml, "{0}/data.yaml: not a YAML file that only holds values (could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'); fix or remove it"),
        (no_names, "{0}: YOLO labels without the names of the classes; add a data.yaml or classes.txt that lists them"),
        (high_class, "{0}/train/labels/train.txt: line 2 is not a YOLO label (class 2 of 2); fix or remove it"),
        (pixels, "{0}/train/labels/train.txt: line 1 is not a YOLO label ([28.0, 14.0, 40.0, 20.0] are no parts of the photo's sides, from 0 to 1); fix or remove it"),
        (two_lists, "{0}/val/labels/classes.txt: lists other classes than {0}/test/labels/classes.txt; remove one of them"),
        (archive, "{0}: not a folder; unpack it, and give the folder"),
        (two_data_sets, "{0}/one: no photos in this class's folder; its folders have some: give -d the one to train on"),
        (no_split, "{0}/data.yaml: val: ../valid/images is not a folder of photos in this data set; correct it"),
        (yes_and_no, "{0}/data.yaml: names must list the classes, as [with_mask, without_mask], yes and no in quotes; correct it"),
        (csv_box, "{0}/labels.csv: row 2 is not a label (could not convert string to float: 'x'); fix or remove it"),
        (csv_photos, "{0}/labels.csv: none of the 1 photos that it names is in {0}; copy them there"),
        (reserved, "{0}: a class is called train, as a part of a data set is; rename it, or check the layout"),
        (images_and_labels, "{0}: YOLO labels without the names of the classes; add a data.yaml or classes.txt that lists them"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, make, message):
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(InputError) as error:
        read_dataset(folder)
    assert str(error.value) == message.format(folder)


@pytest.mark.parametrize(
    ("make", "file"),
    [
        (roboflow_yolo, "data.yaml"), (roboflow_yolo, "train/labels/train.txt"), (usual_coco, "annotations/instances_val2017.json"),
        (one_csv, "labels.csv"), (roboflow_classes, "train/_classes.csv"), (yolo_lists, "data.yaml"), (yolo_lists, "train.txt"),
        (voc_devkit, "ImageSets/Main/train.txt"), (voc_devkit, "Annotations/val.xml"),
    ],
)  # fmt: skip
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, make, file):
    make(tmp_path)
    whole = (tmp_path / file).read_bytes()
    rng = np.random.default_rng(0)
    pieces = [
        b"\0",
        b"\xff",
        b"-",
        b"..",
        b"/",
        b"9" * 400,
        b"nan",
        b"1e999",
        b"[",
        b"{",
        b'"',
        b"\n",
        b"null",
        b"[]",
        b": ",
        b"&a *a",
    ]
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, len(data) + 1))
            piece = pieces[rng.integers(len(pieces))]
            data[at : at + int(rng.integers(0, 6))] = piece
        (tmp_path / file).write_bytes(data)
        try:
            photos = read_dataset(tmp_path)
        except InputError as error:
            refused += 1
            assert str(error).strip() and len(str(error)) < 1500
            continue
        for photo in photos:
            assert photo.path.resolve().is_relative_to(tmp_path.resolve())
            assert isinstance(photo, ClassPhoto) or np.isfinite(photo.boxes).all()
    assert refused > 5
