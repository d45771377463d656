"""Data sets in Pascal VOC XML: one file per photo, one `object` per face."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from defusedxml import DefusedXmlException, ElementTree

from facemask.errors import InputError
from facemask.io.annotations import voc_xml
from facemask.io.images import image_size
from facemask.training.data_files import (
    MAX_ANNOTATION_BYTES,
    list_photos,
    read_text,
    report_links,
    report_others,
    split_folders,
    split_of,
    subfolder,
)
from facemask.training.dataset import IGNORE, AnnotatedPhoto, Photo, annotated_photo
from facemask.training.written_files import PhotoWriter

IMAGE_FOLDERS = ("images", "jpegimages")  # in any case
logger = logging.getLogger(__name__)

SETS = ("ImageSets", "Main")  # folders that list the photos of splits, as train.txt


class PascalVoc:
    """`images/` and `annotations/` or `labels/`, `JPEGImages/` and `Annotations/`, or XML beside the photos; also per split."""

    name = "voc"
    title = "Pascal VOC"

    def recognises(self, folder: Path) -> bool:
        """Return whether the folder, or that of a split, has such a layout."""
        return any(True for _ in _parts(folder))

    def read(self, folder: Path, names: Iterable[str] | None = None) -> list[Photo]:
        """List the photos that have an annotation, sorted by name; only the annotations of photos in `names` are read.

        Raises InputError if an annotation cannot be read.
        """
        wanted = None if names is None else set(names)
        listed = _listed_splits(folder)
        photos: list[Photo] = []
        others: Counter[str] = Counter()
        unused = 0
        for images, annotations, split in _parts(folder):
            paths = list_photos(images, others) if images.is_dir() else []
            by_stem = {path.stem: path for path in paths}
            for annotation in sorted(annotations.glob("*.xml")):
                stem = annotation.stem
                if stem in by_stem and (wanted is None or stem in wanted):
                    photos.append(_read_annotation(annotation, by_stem[stem], split or listed.get(stem, "")))
            if wanted is None:
                unused += len(by_stem.keys() ^ {path.stem for path in annotations.glob("*.xml")}) + len(paths) - len(by_stem)
        report_others(folder, others)
        if unused:
            logger.info("%s: %d photos without an annotation, or annotations without a photo: not used", folder, unused)
        report_links(folder, [photo.path for photo in photos])
        return photos

    def write(self, photos: Sequence[AnnotatedPhoto], folder: Path) -> None:
        """Write `images/`, `annotations/`, and `ImageSets/Main/` if the photos have splits."""
        writer = PhotoWriter(folder)
        stems: dict[str, list[str]] = {}
        (folder / "annotations").mkdir(parents=True)
        for photo in photos:
            path = writer.copy(photo.path, Path("images"))
            text = voc_xml(path.name, *image_size(path), photo.faces, IGNORE)
            (folder / "annotations" / f"{path.stem}.xml").write_text(text, encoding="utf-8")
            stems.setdefault(photo.split, []).append(path.stem)
        for split in stems.keys() - {""}:
            file = folder.joinpath(*SETS, f"{split}.txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{stem}\n" for stem in stems[split]), encoding="utf-8")


def _parts(folder: Path, split: str = "") -> Iterator[tuple[Path, Path, str]]:
    """Yield the folder of photos, the folder of annotations and the split, "" for none."""
    annotations = subfolder(folder, "annotations")
    if annotations is None:
        labels = subfolder(folder, "labels")  # of XML, or else of YOLO
        annotations = labels if labels is not None and next(labels.glob("*.xml"), None) else None
    if annotations is not None:
        yield subfolder(folder, *IMAGE_FOLDERS) or folder / IMAGE_FOLDERS[0], annotations, split
        return
    if next(folder.glob("*.xml"), None):
        yield folder, folder, split
    if not split:
        for part, name in split_folders(folder).items():
            yield from _parts(part, name)


def _listed_splits(folder: Path) -> dict[str, str]:
    """Return the split of each photo that ImageSets/Main lists, by stem."""
    lists = [path for path in folder.joinpath(*SETS).glob("*.txt") if split_of(path.stem)]
    return {line.split()[0]: split_of(path.stem) for path in lists for line in read_text(path).splitlines() if line.strip()}


def _read_annotation(path: Path, image: Path, split: str) -> AnnotatedPhoto:
    """Return what a Pascal VOC annotation says of an image. Raises InputError if it is not an annotation."""
    faces = []
    try:
        if not path.is_file() or path.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ValueError("too long" if path.is_file() else "not a regular file")
        for face in ElementTree.parse(path, forbid_dtd=True).getroot().iter("object"):
            box = [float(face.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            is_difficult = (face.findtext("difficult") or "").strip() == "1"
            faces.append((face.findtext("name").strip(), box, is_difficult))
        return annotated_photo(image, faces, split)
    except DefusedXmlException as error:
        raise InputError(f"{path}: has a DTD or entities, which no annotation needs; remove them") from error
    except (ElementTree.ParseError, TypeError, ValueError, AttributeError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a Pascal VOC annotation ({reason}); fix or remove it") from error
