"""Videos as people have them, through the whole program: every frame, its faces, and the exit code."""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import detect_mask_video
from tests.helpers import INTERLACED, ROOT, hide_first_frames, interlace, write_sound_video, write_video
from tests.test_detect_mask_video import frames_of, lines_of, people
from tests.video.streams import serve_http, serve_rtsp
from tests.video.test_sound import assert_same, read_sound

AV1 = next((codec for codec in ("libsvtav1", "libaom-av1") if codec in av.codec.codecs_available), "")
FRAMES = 12


def panned(number: int) -> np.ndarray:
    """Return a field of a camera that pans over people, as PAL has it."""
    return people(1216, 640)[:576, 8 * number : 8 * number + 720]


def write_interlaced(folder: Path, kind: str, frames: int = FRAMES) -> Path:
    name, codec, options = INTERLACED[kind]
    numbers = [2 * number % 40 for number in range(frames)]  # the camera goes back to its start
    return write_video(folder / name, [interlace(panned(number), panned(number + 1)) for number in numbers], codec, **options)


def write_animation(folder: Path, name: str) -> Path:
    frames = [Image.fromarray(panned(number)[..., ::-1]) for number in range(FRAMES)]
    frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=40)
    return folder / name


def write_people(folder: Path, name: str, codec: str = "libx264", width: int = 608, height: int = 320, **options) -> Path:
    return write_video(folder / name, [people(width, height)] * FRAMES, codec, **options)


def table() -> list:
    """Return one row for each kind: what writes it, its frames, the minimum of faces in each, and their shape."""
    rows: dict[str, tuple[Callable[[Path], Path], int, int, tuple[int, int, int]]] = {
        **{f"interlaced {kind}": (partial(write_interlaced, kind=kind), FRAMES, 4, (576, 720, 3)) for kind in INTERLACED},
        "interlaced DV": (partial(write_interlaced, kind="DV"), FRAMES, 4, (576, 768, 3)),  # states its pixels' aspect
        "AV1 in MP4": (partial(write_people, name="a.mp4", codec=AV1), FRAMES, 4, (320, 608, 3)),
        "AV1 in WebM": (partial(write_people, name="a.webm", codec=AV1), FRAMES, 4, (320, 608, 3)),
        "edit list": (lambda folder: hide_first_frames(folder / "a.mp4", [people()] * 50, 38), 12, 4, (320, 608, 3)),
        "pixels not square": (
            partial(write_people, name="a.mp4", width=720, height=576, aspect=Fraction(64, 45)), FRAMES, 4, (576, 1024, 3)
        ),
        "animated WebP": (partial(write_animation, name="a.webp"), FRAMES, 4, (576, 720, 3)),
        "animated PNG": (partial(write_animation, name="a.png"), FRAMES, 4, (576, 720, 3)),
        "animation of docs/video.md": (lambda folder: ROOT / "docs" / "video.webp", 64, 3, (262, 420, 3)),
    }  # fmt: skip
    return [pytest.param(*row, id=name) for name, row in rows.items()]


def check(source: object, frames: int, folder: Path, capsys: pytest.CaptureFixture, *arguments: str, min_faces: int = 1) -> None:
    """Process `source` into o.jsonl, and fail unless the exit code is 0, nothing is warned of, and each frame has faces."""
    assert detect_mask_video.main(["-i", str(source), "--jsonl", str(folder / "o.jsonl"), *map(str, arguments)]) == 0
    assert [len(record["faces"]) >= min_faces for record in lines_of(folder / "o.jsonl")] == [True] * frames
    assert "[WARN]" not in capsys.readouterr().err


@pytest.mark.parametrize(("write", "frames", "min_faces", "shape"), table())
def test_kind(tmp_path, capsys, write, frames, min_faces, shape):
    out = tmp_path / "out.mp4"
    check(write(tmp_path), frames, tmp_path, capsys, "-o", out, min_faces=min_faces)
    assert [frame.image.shape for frame in frames_of(out)] == [shape] * frames


@pytest.mark.parametrize("kind", ["H.264 in a transport stream", "MPEG-2 in a transport stream"])
def test_interlaced_file_of_a_web_server(tmp_path, capsys, kind):
    """It has an end, so that every frame is processed."""
    with serve_http(write_interlaced(tmp_path, kind)) as server:
        check(server.url, FRAMES, tmp_path, capsys, min_faces=4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["H.264 in a transport stream", "MPEG-2 in a transport stream"])
def test_interlaced_rtsp_stream(tmp_path, capsys, kind):
    """Each frame is processed, or dropped and counted; the end of a stream is a failure."""
    jsonl = tmp_path / "o.jsonl"
    with serve_rtsp(write_interlaced(tmp_path, kind, frames=50), seconds=4) as server:
        assert detect_mask_video.main(["-i", server.url, "--jsonl", str(jsonl), "--reconnect", "0"]) == 1
    records = lines_of(jsonl)
    assert [len(record["faces"]) >= 4 for record in records] == [True] * len(records)
    err = capsys.readouterr().err
    dropped = sum(map(int, re.findall(r"(\d+) dropped", err)))
    assert len(records) + dropped == records[-1]["frame"] + 1 > 5  # from the first that was not missed while opening
    assert [line for line in err.splitlines() if "WARN" in line] == [
        f"[WARN] {server.url} has ended; start again when it is back"
    ]


def test_corrupt_frames_are_counted(tmp_path, capsys):
    path = write_video(tmp_path / "a.mp4", [people()] * 50, g="10")
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)
    assert detect_mask_video.main(["-i", str(path), "--jsonl", str(tmp_path / "o.jsonl")]) == 0
    (corrupt,) = re.findall(r"50 frames, (\d+) corrupt, \d+ faces", capsys.readouterr().err)
    faces = [len(record["faces"]) for record in lines_of(tmp_path / "o.jsonl")]
    assert len(faces) == 50 and 1 <= int(corrupt) <= 10  # up to the next keyframe
    assert sum(number >= 1 for number in faces) >= 50 - int(corrupt)


@pytest.mark.parametrize(
    ("arguments", "frames", "end"),
    [
        pytest.param([], 60, 9.0, id="all"),
        pytest.param(["--stride", "3"], 20, 9.0, id="stride"),
        pytest.param(["--max-frames", "10"], 10, 0.4, id="max-frames"),
        pytest.param(["--stride", "3", "--max-frames", "10"], 10, 1.2, id="both"),
        pytest.param(["--no-audio"], 60, -9.0, id="no-audio"),
    ],
)
def test_sound_is_copied(tmp_path, capsys, arguments, frames, end):
    """Each packet as it was and at its time, to the end of the last frame."""
    path, out = write_sound_video(tmp_path / "a.mp4", 60, image=people()), tmp_path / "out.mp4"
    check(path, frames, tmp_path, capsys, "-o", out, *arguments, min_faces=8)
    stride = 3 if "--stride" in arguments else 1
    assert [frame.time for frame in frames_of(out)] == pytest.approx([stride * number / 25 for number in range(frames)])
    with av.open(str(out)) as container:
        kinds = [stream.type for stream in container.streams]
    kept = [packet for packet in read_sound(path) if packet[0] < end]
    assert kinds == (["video", "audio"] if kept else ["video"])
    assert_same(read_sound(out) if kept else [], kept, 1e-9)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "frames", "shape"),
    [
        ("interlaced_1s.mp4", 25, (400, 640, 3)),
        ("av1_1s.mp4", 25, (400, 640, 3)),
        ("trimmed.mp4", 50, (400, 640, 3)),
        ("editlist.mp4", 167, (400, 640, 3)),
        ("sar_1s.mp4", 25, (576, 1024, 3)),
        ("audio_2s.mp4", 50, (400, 640, 3)),
        ("anim.webp", 30, None),
    ],
)
def test_shared_cases(shared, tmp_path, capsys, name, frames, shape):
    out = tmp_path / "out.mp4"
    check(shared / "cases" / "video" / name, frames, tmp_path, capsys, "-o", out)
    assert shape is None or {frame.image.shape for frame in frames_of(out)} == {shape}
