"""Which sources files, folders, globs, cameras and URLs name, and how what is made of each is called."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facemask.errors import InputError
from facemask.video.find_sources import find_sources, make_jobs, source_name, source_stems


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Videos in a folder and its subfolder, images, both, and an animation; their content does not matter."""
    monkeypatch.chdir(tmp_path)
    names = ("v/b.mp4", "v/a.MKV", "v/sub/c.webm", "v/notes.txt", "images/10.jpg", "images/9.jpg", "both/a.mp4", "both/a.png", "phone/1.HEIC", "phone/2.avif",
             "v/._a.mp4", "v/.trash/d.mp4")  # fmt: skip
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 255)]
    frames[0].save("anim.webp", save_all=True, append_images=frames[1:])
    os.mkfifo("fifo")
    return tmp_path


STILLS = [Path("images/9.jpg"), Path("images/10.jpg")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(["v"], ["v/a.MKV", "v/b.mp4", "v/sub/c.webm"], id="folder of videos"),
        pytest.param(["v/*.*"], ["v/a.MKV", "v/b.mp4", "v/notes.txt"], id="glob"),
        pytest.param(["v/b.mp4", "v"], ["v/b.mp4", "v/a.MKV", "v/sub/c.webm"], id="each once, in order"),
        pytest.param(["v/notes.txt", "none.mp4"], ["v/notes.txt", "none.mp4"], id="files as named"),
        pytest.param(["images"], ["images"], id="folder of images"),
        pytest.param(["images/*.jpg"], ["images/*.jpg"], id="glob of images"),
        pytest.param(["images/%d.jpg"], ["images/%d.jpg"], id="numbered images"),
        pytest.param(["images/9.jpg"], ["images/9.jpg"], id="one image"),
        pytest.param(["images/9.jpg", "images/10.jpg"], [STILLS], id="images one by one are one video"),
        pytest.param(["images/9.jpg", "images/10.jpg", "v/b.mp4", "anim.webp"], [STILLS, "v/b.mp4", "anim.webp"], id="animation"),
        pytest.param(["phone/1.HEIC", "phone/2.avif"], [[Path("phone/1.HEIC"), Path("phone/2.avif")]], id="of a phone"),
        pytest.param(["v/*.none"], ["v/*.none"], id="no match"),
        pytest.param(["0", "1", "rtsp://a/b", "-", "fifo"], ["0", "1", "rtsp://a/b", "-", "fifo"], id="at once"),
        pytest.param(["0", "0"], ["0"], id="a camera once"),
    ],
)
def test_find_sources(files, caplog, given, expected):
    assert find_sources(given) == expected
    assert caplog.messages == []


@pytest.mark.parametrize("source", ["both", "both/*"])
def test_images_beside_videos_are_reported(files, caplog, source):
    assert find_sources([source]) == ["both/a.mp4"]
    assert caplog.messages == [f"{source}: has videos; its images (1) are not used; give them apart"]


def test_earlier_results_are_no_sources(files):
    assert find_sources(["v"], Path("v/sub")) == ["v/a.MKV", "v/b.mp4"]
    assert find_sources(["v/sub"], Path("v/sub")) == ["v/sub/c.webm"]
    assert find_sources(["v/sub/c.webm"], Path("v/sub")) == ["v/sub/c.webm"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["0", "a.mp4"], "camera 0: cameras and streams run at once, and files such as a.mp4 one after the other"),
        (["v", "rtsp://me:secret@a/b"], "rtsp://a/b: cameras and streams run at once, and files such as v/a.MKV one after the other"),
    ],
)  # fmt: skip
def test_files_and_cameras_in_one_run(files, given, message):
    with pytest.raises(InputError) as error:
        find_sources(given)
    assert str(error.value) == f"{message}; give one kind, and the other to another run"


@pytest.mark.parametrize(
    ("source", "name", "stem"),
    [
        ("v/b.mp4", "v/b.mp4", "b"),
        ("0", "camera 0", "camera_0"),
        ("-", "standard input", "standard_input"),
        ("rtsp://me:secret@door:554/stream?x=1", "rtsp://door:554/stream?…", "door_554_stream"),
        ("images", "images", "images"),
        ("images/%d.jpg", "images/%d.jpg", "images_d.jpg"),
        ([Path("images/9.jpg"), Path("images/10.jpg")], "images/9.jpg and 1 more", "9"),
    ],
)
def test_names(files, source, name, stem):
    assert (source_name(source), source_stems([source])) == (name, [stem])


def test_stems_differ(files):
    sources = ["v/b.mp4", "w/b.mp4", "b.mkv", "b_2.mp4", "w/B.mp4", "B_2.mkv"]
    for name in sources:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    stems = source_stems(sources)
    assert stems[0] == "b" and len({stem.casefold() for stem in stems}) == 6


@pytest.mark.parametrize(
    ("sources", "output", "videos"),
    [
        (["v/b.mp4"], "out.mkv", ["out.mkv"]),
        (["v/b.mp4"], "out", ["out/b.mp4"]),
        (["v/a.MKV"], "v", ["v/a.mkv"]),
        (["v/a.MKV", "v/sub/c.webm", "anim.webp"], "out", ["out/a.mkv", "out/c.mp4", "out/anim.mp4"]),
        (["0", "rtsp://a/b"], "out", ["out/camera_0.mp4", "out/a_b.mp4"]),
    ],
)
def test_where_videos_go(files, sources, output, videos):
    assert [job.video for job in make_jobs(sources, Path(output))] == list(map(Path, videos))


def test_jobs_without_videos(files):
    jobs = make_jobs(["v/b.mp4", "v/sub/c.webm"], None)
    assert [(job.video, job.prefix, job.files) for job in jobs] == [
        (None, "b-", [Path("v/b.mp4")]),
        (None, "c-", [Path("v/sub/c.webm")]),
    ]
    assert [(job.prefix, job.files) for job in make_jobs(["0"], None)] == [("", [])]


def test_one_file_for_several_sources(files):
    with pytest.raises(InputError) as error:
        make_jobs(["0", "1"], Path("out.mp4"))
    assert str(error.value) == "out.mp4: is one file for 2 sources; give -o a folder"
