"""Data sets in COCO's JSON: photos, classes and boxes of a whole set, or of one split, in one file."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from facemask.errors import InputError
from facemask.io.images import image_size
from facemask.training.data_files import MAX_LIST_BYTES, PhotoFinder, read_text, report_links, split_of, walk_files
from facemask.training.dataset import IGNORE, AnnotatedPhoto, Photo, annotated_photo, check_face
from facemask.training.written_files import PhotoWriter

KEYS = ('"images"', '"annotations"', '"categories"')


class Coco:
    """JSON files with `images`, `annotations` and `categories`, in the folder or one below it; the split is in the name.

    An annotation with `iscrowd` is to be ignored; one without a box has the box around its polygons.
    """

    name = "coco"
    title = "COCO"

    def recognises(self, folder: Path) -> bool:
        """Return whether the folder has such a JSON file."""
        return any(True for _ in _files(folder))

    def read(self, folder: Path, names: Iterable[str] | None = None) -> list[Photo]:
        """List the photos in the order of the files. Raises InputError if a file or a path in it is wrong."""
        wanted = None if names is None else set(names)
        finder = PhotoFinder(folder)
        photos: dict[Path, Photo] = {}
        for file in _files(folder):
            for photo in _read_file(file, folder, finder):
                if wanted is None or photo.path.stem in wanted:
                    if photo.path in photos:
                        raise InputError(f"{file}: {photo.path} is in another file, or twice in this one; remove one of them")
                    photos[photo.path] = photo
        if wanted is None:
            finder.report_unnamed(photos)
        report_links(folder, photos)
        return [*photos.values()]

    def write(self, photos: Sequence[AnnotatedPhoto], folder: Path) -> None:
        """Write images/, and annotations/instances_SPLIT.json for each split, `default` for photos without one."""
        classes = sorted({label for photo in photos for label in photo.labels} - {IGNORE})
        classes += [IGNORE] * any(len(photo.ignored) for photo in photos)
        writer = PhotoWriter(folder)
        files: dict[str, tuple[list, list]] = {}
        face_id = 0
        (folder / "annotations").mkdir(parents=True)
        for number, photo in enumerate(photos, 1):
            images, annotations = files.setdefault(photo.split or "default", ([], []))
            path = writer.copy(photo.path, Path("images"))
            width, height = image_size(path)
            images.append({"id": number, "file_name": path.name, "width": width, "height": height})
            for label, (x1, y1, x2, y2) in photo.faces:
                face_id += 1
                box = [round(float(side), 2) for side in (x1, y1, x2 - x1, y2 - y1)]
                annotations.append(
                    {
                        "id": face_id,
                        "image_id": number,
                        "category_id": classes.index(label) + 1,
                        "bbox": box,
                        "area": round(box[2] * box[3], 2),
                        "iscrowd": int(label == IGNORE),
                        "segmentation": [],
                    }
                )
        categories = [{"id": number, "name": name, "supercategory": "face"} for number, name in enumerate(classes, 1)]
        for split, (images, annotations) in files.items():
            content = {"images": images, "annotations": annotations, "categories": categories}
            text = json.dumps(content, ensure_ascii=False)
            (folder / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8")


def _files(folder: Path) -> Iterable[Path]:
    for path in walk_files(folder, ".json"):
        text = read_text(path, MAX_LIST_BYTES)
        if all(key in text for key in KEYS):
            yield path


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _read_file(file: Path, folder: Path, finder: PhotoFinder) -> list[AnnotatedPhoto]:
    split = split_of(file.stem) or (split_of(file.parent.name) if file.parent != folder else "")
    try:
        content = json.loads(read_text(file, MAX_LIST_BYTES), parse_constant=_refuse)
        classes = {category["id"]: str(category["name"]).strip() for category in content["categories"]}
        named = {image["id"]: str(image["file_name"]) for image in content["images"]}
        faces: dict[object, list] = {number: [] for number in named}
        for annotation in content["annotations"]:
            ignored = bool(annotation.get("iscrowd") or annotation.get("ignore"))
            faces[annotation["image_id"]].append((classes[annotation["category_id"]], _box(annotation), ignored))
            check_face(*faces[annotation["image_id"]][-1][:2])
    except (ValueError, TypeError, AttributeError, RecursionError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{file}: not COCO annotations ({reason}); fix or remove it") from error
    # The folder of the file, and those that are usual beside annotations/: images/, train2017/.
    places = [file.parent, folder, *(place for place in (folder / "images", file.parent / "images") if place.is_dir())]
    places += [folder / name for name in {file.stem.rpartition("_")[2], split} if name]
    photos = []
    for number, name in named.items():
        path = finder.find(name, places, file)
        if path is not None:
            photos.append(annotated_photo(path, faces[number], split))
    finder.report_missing(file, len(named))
    return photos


def _box(annotation: dict) -> list[float]:
    """Return the box of an annotation, x1, y1, x2, y2 in pixels. Raises ValueError or KeyError if it has none."""
    if "bbox" in annotation:
        x, y, width, height = map(float, annotation["bbox"])
        if width < 0 or height < 0:
            raise ValueError(f"bbox {annotation['bbox']}")
        return [x, y, x + width, y + height]
    numbers = [float(number) for polygon in annotation["segmentation"] for number in polygon]
    return [min(numbers[0::2]), min(numbers[1::2]), max(numbers[0::2]), max(numbers[1::2])]
