#!/usr/bin/env python3
"""Download the public training photos, checked and resumable.

  python -m dataset.download                    the real photos, into dataset/
  python -m dataset.download tutorial -o old/   the original tutorial's, into old/

Photos already there are kept, so an interrupted download resumes where it stopped. GITHUB_TOKEN, if set, is sent to
GitHub, which then allows more requests from one address.
"""

import argparse
import hashlib
import http.client
import json
import os
import sys
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, run
from facemask.errors import InputError
from facemask.io.outputs import atomic_path

API = "https://api.github.com/repos"
RAW = "https://raw.githubusercontent.com"
TIMEOUT = 30  # s, for a response
CONNECTIONS = 8


@dataclass(frozen=True)
class Source:
    """Photos in a GitHub repository: those of each class are in `folder`/CLASS at `commit`."""

    repository: str
    commit: str
    folder: str
    classes: tuple[str, ...] = ("with_mask", "without_mask")


SOURCES = {
    "real": Source("chandrikadeb7/Face-Mask-Detection", "ae0293a16364a9e67ffacd0f0200ae441463b04a", "dataset"),
    "tutorial": Source("prajnasb/observations", "76bc82fa34f4f602a03bf6e2ee8666ff6c893edb", "experiements/data"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("source", nargs="?", choices=SOURCES, default="real", help="which photos")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder for the class folders")
    return parser


def download(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    source = SOURCES[args.source]
    photos = list_photos(source)
    for label in source.classes:
        (args.output / label).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        jobs = pool.map(lambda photo: _outcome(source, photo, args.output), photos.items())
        failures = [error for error in tqdm(jobs, total=len(photos), unit="photo") if error]
    for error in failures[:5]:
        print(f"[WARN] {error}", file=sys.stderr)
    if failures:
        raise InputError(f"{len(failures)} of {len(photos)} photos: not downloaded; run the same command again to fetch the rest")
    print(f"{len(photos)} photos in {args.output}")
    return DONE


def list_photos(source: Source) -> dict[str, str]:
    """Return the git hash of each photo by its path in the repository. Raises InputError if GitHub does not answer."""
    from facemask.io.find_images import READ_SUFFIXES

    url = f"{API}/{source.repository}/git/trees/{source.commit}?recursive=1"
    try:
        tree = json.loads(_get(url))
        entries = tree["tree"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url}: the response is not from GitHub; check the connection") from error
    if tree.get("truncated"):
        raise InputError(f"{source.repository}: GitHub lists only a part of it; clone it with git")
    folders = tuple(f"{source.folder}/{label}/" for label in source.classes)
    photos = {
        entry["path"]: entry["sha"]
        for entry in entries
        if entry["path"].startswith(folders) and entry["path"].lower().endswith(READ_SUFFIXES)
    }
    if not photos:
        raise InputError(f"{source.repository}: no photos in {source.folder}/; the source has changed; report it to this project")
    return photos


def fetch_photo(source: Source, photo: str, sha: str, output: Path) -> None:
    """Download a photo to `output`/CLASS/NAME unless it is there already. Raises InputError if that fails."""
    target = output / Path(photo).parent.name / Path(photo).name
    if target.is_file() and git_hash(target.read_bytes()) == sha:
        return
    data = _get(f"{RAW}/{source.repository}/{source.commit}/{urllib.parse.quote(photo)}")
    if git_hash(data) != sha:
        raise InputError(f"{photo}: the download differs from the file in git (SHA-1); try again")
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def git_hash(data: bytes) -> str:
    """Return the hash of a file with these bytes in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _outcome(source: Source, photo: tuple[str, str], output: Path) -> InputError | None:
    try:
        fetch_photo(source, *photo, output)
    except InputError as error:
        return error
    return None


def _get(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "facemask"})
    if (token := os.environ.get("GITHUB_TOKEN")) and url.startswith(API):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{url}: cannot be downloaded ({getattr(error, 'reason', error)}); check the connection") from error


def main(argv: list[str] | None = None) -> int:
    return run(download, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
