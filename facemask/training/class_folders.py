"""Data sets by folder: one folder per class, or those of each split in a folder of its own (ImageFolder)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from facemask.errors import InputError
from facemask.training.data_files import (
    has_photos,
    is_photo,
    list_photos,
    report_links,
    report_others,
    report_unused,
    split_folders,
    subfolders,
)
from facemask.training.dataset import EXPECTED_LAYOUT, ClassPhoto, Photo
from facemask.training.written_files import PhotoWriter, cut_out


class ClassFolders:
    """One folder per class, or `train`, `val` and `test` with such folders in each."""

    name = "folders"
    title = "one folder per class"

    def recognises(self, folder: Path) -> bool:
        """Return whether the folder has folders with photos, or folders of splits with such."""
        return bool(_splits(folder)) or any(map(has_photos, subfolders(folder)))

    def read(self, folder: Path, names: Iterable[str] | None = None) -> list[Photo]:
        """List the photos, sorted by path. Raises InputError if a class has none, or if there is no class."""
        others: Counter[str] = Counter()
        splits = _splits(folder)
        photos = [photo for part, split in (splits or {folder: ""}).items() for photo in _read_classes(part, split, others)]
        for path in subfolders(folder) if splits else ():
            if path not in splits and any(map(has_photos, (path, *subfolders(path)))):
                raise InputError(f"{path}: is not a split, as the folders beside it are; move its photos into those")
        if not photos:
            raise InputError(f"{folder}: no photos found in its subfolders; {EXPECTED_LAYOUT}")
        places = {photo.path.parent for photo in photos}
        unused = [path for place in (folder, *splits) for path in place.iterdir()]
        unused += [path for place in places for deeper in subfolders(place) for path in deeper.iterdir()]
        report_unused(folder, sorted(unused), "are not directly in the folder of a class")
        report_others(folder, others)
        report_links(folder, [photo.path for photo in photos])
        return [*photos]

    def write(self, photos: Sequence[Photo], folder: Path) -> None:
        """Write photos by class as they are, and of annotated ones each face, cut out."""
        writer = PhotoWriter(folder)
        for photo in photos:
            if isinstance(photo, ClassPhoto):
                writer.copy(photo.path, Path(photo.split, photo.label))
                continue
            for number, (label, box) in enumerate(zip(photo.labels, photo.boxes, strict=True)):
                cut_out(photo.path, box, writer.free_path(Path(photo.split, label), f"{photo.path.stem}_{number}.png"))


def _splits(folder: Path) -> dict[Path, str]:
    """Return the splits of a folder by their folders; empty if those have photos, or no folders with photos."""
    splits = split_folders(folder)
    are_splits = any(has_photos(place) for part in splits for place in subfolders(part)) and not any(map(has_photos, splits))
    return splits if are_splits else {}


def _read_classes(folder: Path, split: str, others: Counter[str]) -> list[ClassPhoto]:
    photos = []
    for class_folder in subfolders(folder):
        paths = list_photos(class_folder, others)
        if not paths:
            deeper = any(is_photo(path) for path in class_folder.rglob("*"))
            remedy = "its folders have some: give -d the one to train on" if deeper else "put some there, or remove it"
            raise InputError(f"{class_folder}: no photos in this class's folder; {remedy}")
        photos += [ClassPhoto(path, class_folder.name, split) for path in paths]
    return photos
