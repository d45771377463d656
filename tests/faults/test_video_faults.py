"""The table "Videos" of docs/errors.md, row by row."""

import wave
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from facemask.video.decoder import VideoDecoder
from tests.faults.fault_table import FaultTable, Run, copy_image, needs_linux, write
from tests.helpers import Camera, numbered, write_sound_video, write_video

pytestmark = needs_linux
TABLE = FaultTable("Videos")


def on_video(*arguments: str, after: Callable[[], None] = lambda: None) -> Run:
    import detect_mask_video

    return Run(["-i", *arguments], script=detect_mask_video.main, after=after)


@TABLE.case("missing video")
def missing_video(folder):
    return on_video("v.mp4")


@TABLE.case("not a video: empty, text, noise")
def no_video(folder):
    contents = {"empty": b"", "text": b"text" * 99, "noise": np.random.default_rng(0).bytes(9999)}
    runs = []
    for data in contents.values():
        runs.append(Run(["-i", "v.mp4"], script=lambda arguments, data=data: on_video(write("v.mp4", data)).script(arguments)))
    return runs


def write_avi(images: Iterable[np.ndarray], rate: float = 10) -> None:
    """Write v.avi: motion JPEG."""
    writer = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"MJPG"), rate, (192, 64))
    for image in images:
        writer.write(image)
    writer.release()


def check_frames(count: int) -> None:
    """Fail unless o.jsonl has this number of frames."""
    assert len(Path("o.jsonl").read_text().splitlines()) == count


@TABLE.case("of a codec that FFmpeg cannot decode")
def unknown_codec(folder):
    data = write_video(Path("v.mp4"), map(numbered, range(4)), "mpeg4").read_bytes()
    return on_video(write("v.mp4", data.replace(b"mp4v", b"zz91").replace(b"esds", b"free")))


@TABLE.case("sound without video")
def sound_alone(folder):
    with wave.open("v.wav", "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))
    return on_video("v.wav")


@TABLE.case("with sound that the annotated video cannot hold: it is written without")
def unsuitable_sound(folder):
    write_sound_video(Path("v.mkv"), 4, "pcm_u8")
    return on_video("v.mkv", "-o", "o.mp4", "--jsonl", "o.jsonl", after=lambda: check_frames(4))


@TABLE.case("cut off: the rest is processed")
def cut_video(folder):
    write_avi(numbered(1) for _ in range(50))
    chunks = (
        Path("v.avi").read_bytes().split(b"00dc")
    )  # one per frame, after the two of the head; versions of OpenCV compress differently
    return on_video(write("v.avi", b"00dc".join(chunks[:19])), "--jsonl", "o.jsonl", after=lambda: check_frames(17))


@TABLE.case("that cannot be read to its end, as on a broken disk: what was read is processed")
def broken_disk(folder, monkeypatch):
    write_avi(map(numbered, range(1, 10)))
    packets = VideoDecoder._packets

    def fail(decoder: VideoDecoder) -> Iterator:
        container, demux = decoder._container, decoder._container.demux

        def read() -> Iterator:
            yield from islice(demux(), 5)
            raise av.error.OSError(5, "Input/output error")

        decoder._container = SimpleNamespace(demux=read, close=container.close, start_time=0)
        return packets(decoder)

    monkeypatch.setattr(VideoDecoder, "_packets", fail)
    return on_video("v.avi", "--jsonl", "o.jsonl", after=lambda: check_frames(5))


@TABLE.case("an animation that is cut off: the rest is processed")
def cut_animation(folder):
    frames = [Image.fromarray(numbered(number)) for number in range(1, 21)]
    frames[0].save("v.png", save_all=True, append_images=frames[1:], duration=40)
    data = Path("v.png").read_bytes()
    tenth = [at for at in range(len(data)) if data.startswith(b"fdAT", at)][8]  # the first frame is in IDAT
    return on_video(write("v.png", data[: tenth + 30]), "--jsonl", "o.jsonl", after=lambda: check_frames(9))


@TABLE.case("frames that cannot be decoded, for two seconds or more: the others are processed")
def corrupt_frames(folder):
    write_avi(map(numbered, range(1, 61)))
    data = bytearray(Path("v.avi").read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    for number in range(20, 50):
        size = starts[number + 1] - starts[number] - 8  # up to the next frame's head
        data[starts[number] : starts[number] + size] = bytes(size)
    return on_video(write("v.avi", bytes(data)), "--jsonl", "o.jsonl", after=lambda: check_frames(30))


@TABLE.case("frames of one colour for two seconds, as of a covered lens")
def covered_lens(folder):
    write_avi(np.full((64, 192, 3), 9, np.uint8) for _ in range(25))
    return on_video("v.avi", "--jsonl", "o.jsonl", after=lambda: check_frames(25))


@TABLE.case("without a frame rate, or with one above 240 frames per second")
def no_rate(folder):
    write_avi(map(numbered, range(1, 10)), rate=1000)
    return on_video("v.avi", "--jsonl", "o.jsonl", after=lambda: check_frames(9))


@TABLE.case("--rate 5 for a video that has its own")
def own_rate(folder):
    write_avi(map(numbered, range(1, 10)))
    return on_video("v.avi", "--rate", "5", "--jsonl", "o.jsonl", after=lambda: check_frames(9))


@TABLE.case("frames larger than --max-pixels 1000")
def large_frames(folder):
    write_avi([numbered(1)])
    return on_video("v.avi", "--max-pixels", "1000")


@TABLE.case("images as frames, one of them corrupt")
def broken_frame(folder):
    copy_image("all/1.jpg")
    write("all/2.jpg", b"text")
    copy_image("all/3.jpg")
    return on_video("all", "--jsonl", "o.jsonl")


@TABLE.case("a camera that is not there")
def no_camera(folder):
    return on_video("97")


@TABLE.case("a stream that nobody sends; the password is not shown")
def no_stream(folder):
    return on_video("http://me:secret@127.0.0.1:9/x")


@TABLE.case("several videos, one of them broken: the others are processed")
def several_videos(folder):
    for name in ("a.mp4", "b.mp4"):
        write_video(Path(name), map(numbered, range(1, 4)))
    return on_video("a.mp4", write("bad.mp4", b"text"), "b.mp4", "--jsonl", "o.jsonl", after=lambda: check_frames(6))


@TABLE.case("several streams that nobody sends")
def no_streams(folder):
    return on_video("http://127.0.0.1:9/a", "http://127.0.0.1:9/b")


@TABLE.case("files and cameras in one run")
def files_and_cameras(folder):
    return on_video("a.mp4", "0")


@TABLE.case("several videos, and one file to write")
def one_output_of_several(folder):
    return on_video("a.mp4", "b.mp4", "-o", "out.mp4")


@TABLE.case("a folder of videos that has images too: they are not used")
def videos_and_images(folder):
    copy_image("all/1.jpg")
    write_video(Path("all/a.mp4"), map(numbered, range(1, 4)))
    return on_video("all", "--jsonl", "o.jsonl", after=lambda: check_frames(3))


@TABLE.case("a zone that is no polygon")
def bad_zone(folder, monkeypatch):
    monkeypatch.setattr("sys.argv", ["detect_mask_video.py"])
    return on_video("0", "--zone", "0,0,1,1")


@TABLE.case("a zone whose sides cross")
def crossed_zone(folder, monkeypatch):
    monkeypatch.setattr("sys.argv", ["detect_mask_video.py"])
    return on_video("0", "--zone", "0,0,1,1,1,0,0,1")


@TABLE.case("a zone of a source that is not there")
def zone_of_no_source(folder):
    return on_video("a.mp4", "--zone", "door@2:0,0,1,0,1,1")


@TABLE.case("a zone in pixels that the image does not have")
def zone_beyond_the_image(folder):
    write_avi(map(numbered, range(1, 4)))
    return on_video("v.avi", "--zone", "0,0,1920,0,1920,1080", "--jsonl", "o.jsonl", after=lambda: check_frames(3))


@TABLE.case("a stream that ends, with --reconnect 0: what came is processed")
def ended_stream(folder, monkeypatch):
    monkeypatch.setattr("facemask.video.sources.source_name", lambda source: "http://camera/video")

    def script(arguments: list[str]) -> int:
        with Camera(map(numbered, range(1, 20)), 20) as camera:
            return on_video(camera.url).script(["-i", camera.url, *arguments])

    return Run(["--reconnect", "0", "--jsonl", "o.jsonl"], script=script)


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
