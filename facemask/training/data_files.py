"""The files of a data set: photos found by suffix or content, text of bounded size, no path out of the folder unsaid."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from facemask.errors import InputError
from facemask.io.find_images import is_image

MAX_ANNOTATION_BYTES = 1 << 24  # of a file for one photo
MAX_LIST_BYTES = 1 << 28  # of a file for all photos
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
HIDDEN = (".", "_")  # begin the names of folders that are not looked into, as .git and __MACOSX
COMPANIONS = (".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".cache", ".db", ".ini")  # files beside photos

logger = logging.getLogger(__name__)


def split_of(name: str) -> str:
    """Return the split that a folder or file is named after, as `train` or `instances_val2017`; "" if it is not one."""
    words = "".join(char if char.isalpha() else " " for char in name.casefold()).split()
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), "")


def is_photo(path: Path) -> bool:
    """Return whether a file has an image's suffix or, if it has another one or none, begins as an image does."""
    return not path.name.startswith(".") and path.suffix.lower() not in COMPANIONS and is_image(path)


def list_photos(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """List the photos directly in a folder, sorted; `others` counts, by suffix, the files that are not photos."""
    photos = []
    for path in sorted(folder.iterdir()):
        if is_photo(path):
            photos.append(path)
        elif others is not None and path.suffix.lower() not in COMPANIONS and not path.name.startswith(".") and path.is_file():
            others[path.suffix.lower() or "no suffix"] += 1
    return photos


def has_photos(folder: Path) -> bool:
    """Return whether there are photos directly in a folder."""
    return any(is_photo(path) for path in folder.iterdir())


def subfolders(folder: Path) -> list[Path]:
    """List the folders directly in a folder, sorted, without hidden ones and those of archives, as .git and __MACOSX."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(HIDDEN))


def subfolder(folder: Path, *names: str) -> Path | None:
    """Return the folder directly in a folder that has the first of these names, whatever its case; None if there is none."""
    by_name = {path.name.casefold(): path for path in subfolders(folder)}
    return next((by_name[name] for name in names if name in by_name), None)


def split_folders(folder: Path) -> dict[Path, str]:
    """Return the folders directly in a folder that are named after a split, and their splits."""
    return {path: split_of(path.name) for path in subfolders(folder) if path.name.casefold() in SPLIT_FOLDERS}


def read_text(path: Path, limit: int = MAX_ANNOTATION_BYTES) -> str:
    """Read a text file, UTF-8. Raises InputError if it cannot be read or has more than `limit` bytes."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: not a regular file; remove it from the data set")
        if path.stat().st_size > limit:
            raise InputError(f"{path}: more than {limit >> 20} MB are too many for annotations; divide the data set")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"{path}: cannot be read ({reason}); save it again as UTF-8 text") from error


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path is below a folder once all links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


class PhotoFinder:
    """Finds the photos that files of a data set name: by their path, or by their name alone, inside its folder only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []  # names that no photo has

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """All photos of the folder and its subfolders, by their names."""
        found = defaultdict(list)
        for parent, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
            for name in sorted(names):
                if is_photo(path := Path(parent, name)):
                    found[name].append(path)
        return found

    @cached_property
    def by_stem(self) -> dict[str, list[Path]]:
        """The same photos by their names without suffix, which some programs write."""
        found = defaultdict(list)
        for path in sorted(path for paths in self.by_name.values() for path in paths):
            found[path.stem].append(path)
        return found

    def find(self, name: str, places: Iterable[Path], source: Path) -> Path | None:
        """Return the photo that `source` calls `name`, relative to one of the places; None, and counted, if there is none.

        A path that leads elsewhere, as from the computer of those who annotated, counts by its last part. Raises
        InputError if that leads out of the folder, or if two photos have this name.
        """
        relative = Path(name.replace("\\", "/"))
        leads_out = relative.is_absolute() or ".." in relative.parts
        for place in places if not leads_out else ():
            path = place / relative
            if os.path.isfile(path):  # unlike pathlib's, it takes a name that is too long
                if not is_inside(path, self.folder):
                    raise InputError(f"{path}: {source} names it, and it is a link out of the data set; copy the photo there")
                return path
        found = self.by_name.get(relative.name) or self.by_stem.get(relative.name, [])
        if len(found) > 1:
            raise InputError(f"{source}: {name} can be {found[0]} or {found[1]}; give paths relative to the data set's folder")
        if found and is_inside(found[0], self.folder):
            return found[0]
        if leads_out:
            raise InputError(f"{source}: {name} is outside of the data set's folder; copy the photo into {self.folder}")
        self.missing.append(name)
        return None

    def report_unnamed(self, named: Iterable[Path]) -> None:
        """Report the photos of the folder that no file names."""
        paths = {path for found in self.by_name.values() for path in found}
        report_unused(self.folder, sorted(paths - set(named)), "that its files do not name")

    def report_missing(self, source: Path, named: int) -> None:
        """Warn of the photos that were not found, of as many as are named. Raises InputError if none was found."""
        if self.missing and len(self.missing) == named:
            raise InputError(f"{source}: none of the {named} photos that it names is in {self.folder}; copy them there")
        if self.missing:
            logger.warning(
                "%s: %d of %d photos are not there, as %s: not used", source, len(self.missing), named, self.missing[0]
            )
            self.missing = []


def report_links(folder: Path, paths: Iterable[Path]) -> None:
    """Warn of photos that are links, or in linked folders, to outside of the folder."""
    outside = [path for path in paths if not is_inside(path, folder)]
    if outside:
        logger.warning("%s: %d photos are links to files elsewhere, as %s: read from there", folder, len(outside), outside[0])


def report_unused(folder: Path, paths: Iterable[Path], why: str) -> None:
    """Report the photos among these paths as not used; `why` follows their number."""
    photos = [path for path in paths if is_photo(path)]
    if photos:
        logger.warning("%s: %d photos %s, as %s: not used", folder, len(photos), why, photos[0])


def report_others(folder: Path, others: Counter[str]) -> None:
    """Warn of the files in the folders of photos that are not images of a known kind."""
    if others:
        counts = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        logger.warning("%s: %d files are not images of a known kind: not used (%s)", folder, others.total(), counts)


def walk_files(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the files of that suffix directly in a folder and in its subfolders, one level deep, sorted."""
    for place in (folder, *subfolders(folder)):
        names = sorted(entry.name for entry in os.scandir(place) if entry.name.lower().endswith(suffix))
        yield from (place / name for name in names if not name.startswith("."))
