import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from facemask.errors import InputError
from facemask.video.camera import open_camera
from facemask.video.decoder import DecodedFrame, VideoDecoder
from facemask.video.find_sources import without_secrets
from facemask.video.sources import LiveSource, is_uniform, open_source
from facemask.video.writer import VideoSink, fit_into
from tests.helpers import ROOT, Camera, hide_first_frames, number_of, numbered

NTSC = Fraction(30000, 1001)


def grey(level: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def frames_of(path: Path) -> list:
    with open_source(str(path)) as source:
        return list(source.frames())


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), grey(20 * number))


# Reading


def test_file_gives_every_frame_at_its_time(video):
    with open_source(str(video)) as source:
        assert (source.rate, source.frame_count, source.has_rate, source.is_live) == (Fraction(2997, 100), 12, True, False)
        frames = list(source.frames())
    assert [frame.number for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([number * 1001 / 30000 for number in range(12)], abs=1e-4)
    assert [round(frame.image.mean() / 20) for frame in frames] == list(range(12))


def test_file_with_uneven_times(tmp_path):
    times = [0, 0.04, 0.08, 0.5, 0.54, 2.0]
    with VideoSink(tmp_path / "a.mp4", Fraction(25)) as sink:
        for moment in times:
            sink.write(grey(100), moment)
    assert [frame.time for frame in frames_of(tmp_path / "a.mp4")] == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize(("stride", "numbers"), [(1, list(range(12))), (5, [0, 5, 10]), (12, [0]), (99, [0])])
def test_stride(video, stride, numbers):
    with open_source(str(video), stride=stride) as source:
        assert source.frame_count == len(numbers)
        frames = list(source.frames())
    assert [frame.number for frame in frames] == numbers
    assert [round(frame.image.mean() / 20) for frame in frames] == numbers
    assert [frame.time for frame in frames] == pytest.approx([number * 1001 / 30000 for number in numbers], abs=1e-4)
    assert source.output_fps == Fraction(2997, 100) / stride


@pytest.mark.parametrize(("width", "shape"), [(1, (1, 1, 3)), (80, (60, 80, 3)), (160, (120, 160, 3)), (999, (120, 160, 3))])
def test_width_scales_down_only(video, width, shape):
    with open_source(str(video), width=width) as source:
        assert {frame.image.shape for frame in source.frames()} == {shape}


def test_stop_ends_a_file(video):
    with open_source(str(video)) as source:
        frames = source.frames()
        next(frames)
        source.stop()
        assert list(frames) == []


@pytest.mark.parametrize("rate", [0.0, float("nan"), float("inf"), -5.0, 90000.0, 1e-5])
def test_file_that_states_no_rate(monkeypatch, video, rate):
    class Decoder(VideoDecoder):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            self.rate, self.frame_count = rate, None

        def read(self, wanted: bool = True) -> DecodedFrame | None:
            frame = super().read(wanted)
            return frame and replace(frame, time=None)

    monkeypatch.setattr("facemask.video.sources.VideoDecoder", Decoder)
    with open_source(str(video)) as source:
        assert (source.has_rate, source.rate, source.frame_count) == (False, 25, None)
        times = [frame.time for frame in source.frames()]
    assert times == pytest.approx([number / 25 for number in range(12)])


def test_rate_is_for_what_states_none(tmp_path):
    """Raw H.264 has neither rate nor times; FFmpeg reads a rate that the encoder noted, unless it did not."""
    with av.open(str(tmp_path / "a.h264"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(20 * number), format="bgr24")))
        container.mux(stream.encode())
    with open_source(str(tmp_path / "a.h264")) as source:
        frames = list(source.frames())
    assert [round(frame.image.mean() / 20) for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(12)])
    assert source.fault == ""


@pytest.mark.parametrize("stride", [1, 3])
def test_frames_that_an_edit_list_hides(tmp_path, stride):
    hide_first_frames(tmp_path / "a.mp4", [grey(8 * number) for number in range(25)], hidden=15)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].frames == 25  # as the header counts
    with open_source(str(tmp_path / "a.mp4"), stride=stride) as source:
        frames = list(source.frames())
    assert source.frame_count == len(frames) == len(range(0, 10, stride))
    assert [round(frame.image.mean() / 8) for frame in frames] == list(range(15, 25, stride))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(0, 10, stride)], abs=1e-3)
    assert (source.fault, source.dropped_frames, source.quality.losses) == ("", 0, {})


def test_file_that_breaks_off(tmp_path):
    with VideoSink(tmp_path / "a.mkv", Fraction(25)) as sink:
        for number in range(100):
            sink.write(numbered(number), number / 25)
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    with open_source(str(tmp_path / "b.mkv")) as source:
        times = [frame.time for frame in source.frames()]
    assert times == pytest.approx([number / 25 for number in range(40)])
    assert source.fault == "states 4.0 s, and breaks off after 1.6 s"


def test_reading_that_fails_is_reported(video, monkeypatch):
    """As of a disk that is broken."""
    with open_source(str(video)) as source:
        demux = source._decoder._container.demux

        def fail():
            for number, packet in enumerate(demux()):
                if number == 5:
                    raise av.error.OSError(5, "Input/output error")
                yield packet

        class Container:
            start_time, close = 0, source._decoder._container.close
            demux = staticmethod(fail)

        source._decoder._container = Container()
        assert len(list(source.frames())) == 5
    assert source.fault == "breaks off after 0.1 s (Input/output error)"


def test_frames_that_cannot_be_decoded_are_dropped_and_counted(tmp_path, caplog):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuvj420p"
        for number in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="bgr24")))
        container.mux(stream.encode())
    data = bytearray((tmp_path / "a.avi").read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    for number in (5, *range(20, 50)):
        size = starts[number + 1] - starts[number] - 8  # up to the next frame's head
        data[starts[number] : starts[number] + size] = bytes(size)
    (tmp_path / "a.avi").write_bytes(data)
    with open_source(str(tmp_path / "a.avi")) as source:
        frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == [frame.number for frame in frames] == [
        number for number in range(60) if number != 5 and not 20 <= number < 50
    ]  # fmt: skip
    assert [frame.time for frame in frames] == pytest.approx([frame.number / 10 for frame in frames])
    assert (source.dropped_frames, source.quality.losses) == (31, {"corrupt": 31})
    assert caplog.messages == [
        f"{tmp_path}/a.avi: all frames are corrupt for 2 s from 2.0 s on; check the file or the connection"
    ]


@pytest.mark.parametrize(
    ("seconds", "messages", "summary"),
    [
        pytest.param(1.8, [], {}, id="short"),
        pytest.param(
            2.2,
            ["{}: all frames are of one colour for 2 s from 1.0 s on; uncover the lens, or check the source"],
            {"of one colour": 55},
            id="long",
        ),
    ],
)
def test_frames_of_one_colour(tmp_path, caplog, seconds, messages, summary):
    path = tmp_path / "a.mp4"
    with VideoSink(path, Fraction(25)) as sink:
        for number in range(100):
            sink.write(grey(3) if 25 <= number < 25 + 25 * seconds else numbered(number + 1, 96), number / 25)
    with open_source(str(path)) as source:
        assert len(list(source.frames())) == 100
    assert caplog.messages == [message.format(path) for message in messages]
    assert source.quality.losses == summary


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(grey(0), True, id="black"),
        pytest.param(grey(128), True, id="grey"),
        pytest.param(np.random.default_rng(0).normal(20, 1.5, (64, 96, 3)).astype(np.uint8), True, id="a covered lens"),
        pytest.param(np.random.default_rng(0).normal(20, 6, (64, 96, 3)).astype(np.uint8), False, id="a dark room"),
        pytest.param(numbered(1, 96), False, id="blocks"),
        pytest.param(grey(9, 1, 1), True, id="a pixel"),
    ],
)
def test_is_uniform(image, expected):
    assert is_uniform(image) is expected


def animation(path: Path, durations: list[int]) -> Path:
    frames = [Image.fromarray(numbered(number)) for number in range(len(durations))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, lossless=True)
    return path


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_animated_image_gives_every_frame(tmp_path, suffix):
    with open_source(str(animation(tmp_path / f"a{suffix}", [40] * 6))) as source:
        frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(6))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(6)])
    assert (source.rate, source.frame_count, source.is_live, source.fault) == (25, 6, False, "")


def test_animated_image_with_uneven_times_stride_and_width(tmp_path):
    with open_source(str(animation(tmp_path / "a.webp", [100, 200, 50, 400, 100])), width=96, stride=2) as source:
        frames = list(source.frames())
    assert [(frame.number, number_of(frame.image)) for frame in frames] == [(0, 0), (2, 2), (4, 4)]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.3, 0.75])
    assert {frame.image.shape for frame in frames} == {(32, 96, 3)} and source.frame_count == 3


def test_animated_image_of_too_many_pixels(tmp_path):
    with pytest.raises(InputError) as error:
        open_source(str(animation(tmp_path / "a.webp", [40, 40])), max_pixels=1000)
    assert str(error.value) == f"{tmp_path}/a.webp: 192 x 64 pixels a frame are more than 1000; give --max-pixels more"


def test_animated_image_that_is_cut_off(tmp_path):
    path = animation(tmp_path / "a.png", [40] * 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(str(path)) as source:
        count = len(list(source.frames()))
    assert 0 < count < 20
    assert source.fault.startswith(f"breaks off after {count * 0.04:.1f} s (")


@pytest.mark.parametrize(
    ("names", "source", "kept"),
    [
        pytest.param(["f1.png", "f10.png", "f2.png"], "", [0, 2, 1], id="folder, by number"),
        pytest.param(["f1.png", "f10.png", "f2.png"], "*.png", [0, 2, 1], id="glob"),
        pytest.param(["f01.png", "f02.png", "fx.png"], "f%02d.png", [0, 1], id="pattern"),
        pytest.param(["f1.png"], "f1.png", [0], id="one"),
    ],
)
def test_images(tmp_path, names, source, kept):
    write_images(tmp_path / "a", names)
    with open_source(str(tmp_path / "a" / source), rate=4) as opened:
        assert (opened.frame_count, opened.rate, opened.is_live) == (len(kept), 4, False)
        frames = list(opened.frames())
    assert [round(frame.image.mean() / 20) for frame in frames] == kept
    assert [(frame.number, frame.time) for frame in frames] == [(number, number / 4) for number in range(len(kept))]


def test_images_of_other_kinds(tmp_path, caplog):
    for name, kind in (("1.avif", "AVIF"), ("2.gif", "GIF"), ("3", "PNG")):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (20 * int(name[0]),) * 3).save(tmp_path / "a" / name, kind)
    (tmp_path / "a" / "4.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50))
    with open_source(str(tmp_path / "a")) as source:
        assert [round(frame.image.mean() / 20) for frame in source.frames()] == [1, 2, 3]
    assert caplog.messages == [f"{tmp_path}/a: not read: 1 JPEG XL"]
    with open_source(str(tmp_path / "a/1.avif")) as source:
        assert (len(list(source.frames())), source.dropped_frames) == (1, 0)


def test_images_with_a_broken_one(tmp_path, caplog):
    write_images(tmp_path / "a", ["1.png", "2.png", "3.png"])
    (tmp_path / "a" / "2.png").write_bytes(b"text")
    with open_source(str(tmp_path / "a")) as source:
        frames = list(source.frames())
    assert [(frame.number, frame.time) for frame in frames] == [(0, 0), (2, 0.08)]
    assert source.dropped_frames == 1
    assert caplog.messages == [f"{tmp_path}/a/2.png: not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        pytest.param(
            "none.mp4", None, "no such video; give a file, a stream's URL, or a camera's index (0 is the first)", id="missing"
        ),
        pytest.param("text.mp4", b"text", "cannot be opened as a video; check that it is one and plays elsewhere", id="text"),
        pytest.param("empty.mp4", b"", "cannot be opened as a video; check that it is one and plays elsewhere", id="empty"),
        pytest.param("f%03d.png", None, "no file matches; check the pattern", id="no images"),
        pytest.param("*.none", None, "no file matches; check the pattern", id="no match"),
    ],
)
def test_bad_file(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        open_source(str(tmp_path / name))
    assert str(error.value) == f"{tmp_path / name}: {message}"


def test_absent_camera():
    with pytest.raises(InputError) as error:
        open_source("97")
    assert str(error.value) == "camera 97: cannot be opened; plug it in, try -i 1, or give a video: -i FILE"


def test_standard_input():
    """Raw motion JPEG, by way of a process with a pipe: every frame, in order."""
    code = (
        "from tests.helpers import number_of; from facemask.video.sources import open_source\n"
        "with open_source('-', rate=10) as source:\n"
        "    print(source.is_live, [(frame.number, round(10 * frame.time), number_of(frame.image)) for frame in source.frames()])"
    )
    data = b"".join(cv2.imencode(".jpg", numbered(number))[1].tobytes() for number in range(30))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, env=environment, timeout=60)
    assert result.stdout.decode().strip() == f"False {[(number,) * 3 for number in range(30)]}", result.stderr.decode()


def test_pipe_that_stalls_can_be_stopped(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    data = 20 * cv2.imencode(".jpg", noise)[1].tobytes()  # more than FFmpeg reads before it opens a pipe
    finished, stalls = threading.Event(), []

    def feed() -> None:
        with open(tmp_path / "fifo", "wb") as fifo:
            with suppress(BrokenPipeError):
                fifo.write(data)
            finished.wait(60)

    def stop_after_frames(stall: float) -> None:
        stalls.append(stall)
        if len(numbers) >= 10:
            source.stop()

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open_source(str(tmp_path / "fifo")) as source:
        numbers = []
        for frame in source.frames(stop_after_frames):
            numbers.append(frame.number)
    finished.set()
    feeder.join()
    assert numbers == list(range(len(numbers))) and len(numbers) >= 10
    assert stalls


def test_pipe_hands_over_an_error(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    data = cv2.imencode(".jpg", numbered(1))[1].tobytes()
    feeder = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(20 * data))
    feeder.start()
    with open_source(str(tmp_path / "fifo"), width=10) as source:
        monkeypatch.setattr(source.quality, "add", lambda *arguments, **keywords: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(source.frames())
    feeder.join()


def test_name_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with VideoSink("12:30:00.mp4", Fraction(25)) as sink:
        sink.write(grey(90), 0)
    assert len(frames_of(Path("12:30:00.mp4"))) == 1


# Live sources


def test_live_source_gives_the_newest_frame():
    with Camera(map(numbered, range(40)), 40) as camera, open_source(camera.url, timeout=0) as source:
        assert source.is_live and source.frame_count is None
        frames = source.frames()
        first = next(frames)
        time.sleep(0.5)
        second = next(frames)
        rest = list(frames)
    assert number_of(second.image) - number_of(first.image) >= 15  # those in between are not waited for
    assert second.time - first.time == pytest.approx((second.number - first.number) / 40, abs=0.2)
    assert source.dropped_frames >= 14
    numbers = [number_of(frame.image) for frame in rest]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 39


def test_live_source_is_opened_again(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(LiveSource, "FIRST_WAIT", 0.2)
    stalls = []
    camera = Camera(map(numbered, range(200)), 40, cuts={20: 0.3, 70: 0.3, 120: 0.3})
    with camera, open_source(camera.url, timeout=3) as source:
        frames = [(frame.time, number_of(frame.image)) for frame in source.frames(stalls.append)]
    numbers = [number for _, number in frames]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 199
    assert camera.connections == 4
    # Nothing but the gaps is lost: what was sent came, but for a frame that a cut broke off, or a slow machine left out.
    assert len(set(camera.sent) - set(numbers)) <= 3 + source.dropped_frames
    assert frames[-1][0] == pytest.approx((199 - numbers[0]) / 40, abs=0.5)  # the clock goes on through the gaps
    lost = f"{camera.url}: the connection is lost; opening it again in 0.2 s"
    assert caplog.messages.count(lost) == 4
    assert sum(message.startswith(f"{camera.url}: back after ") for message in caplog.messages) == 3
    assert max(stalls) > 0.3


def test_live_source_that_stalls_is_noticed():
    """Its connection stays open, and the camera sends nothing more: reading it would take for ever."""
    with Camera(map(numbered, range(30)), 30, stall_at=10) as camera, open_source(camera.url, timeout=0) as source:
        frames = list(source.frames())
    assert number_of(frames[-1].image) == 9
    assert source.fault == "has ended; start again when it is back"


def test_camera_that_hangs_is_noticed(monkeypatch, caplog):
    """OpenCV waits for a camera for ten seconds; the warning comes before that."""

    class Capture:
        reads = 0

        def read(self):
            self.reads += 1
            if self.reads > 1:
                time.sleep(0.8)
            return self.reads == 1, grey(100)

        isOpened = release = lambda self: True
        get = lambda self, which: 25.0  # noqa: E731
        set = lambda self, which, value: None  # noqa: E731

    monkeypatch.setattr(cv2, "VideoCapture", lambda source, *backend: Capture())
    monkeypatch.setattr("facemask.video.sources.STALL", 0.3)
    with open_source("0", width=640, timeout=0) as source:
        assert len(list(source.frames())) == 1
    assert caplog.messages == ["camera 0: no frame for 0 s; waiting"]


def test_error_of_a_camera_is_a_frame_that_did_not_come(monkeypatch, caplog):
    class Capture:
        reads = 0

        def read(self):
            Capture.reads += 1
            if Capture.reads == 2:
                raise cv2.error("can't grab")
            return Capture.reads < 5, grey(100)

        isOpened = release = lambda self: True
        get = lambda self, which: 25.0  # noqa: E731

    monkeypatch.setattr(cv2, "VideoCapture", lambda source, *backend: Capture())
    monkeypatch.setattr(LiveSource, "FIRST_WAIT", 0.05)
    with open_source("0", timeout=0.3) as source:
        frames = list(source.frames())
    assert frames and len(frames) + source.dropped_frames == 3  # the newest is given; what nobody waited for is counted
    assert caplog.messages[0] == "camera 0: the connection is lost; opening it again in 0.05 s"


def test_waits_grow(monkeypatch, caplog):
    monkeypatch.setattr(LiveSource, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(LiveSource, "MAX_WAIT", 0.2)
    with Camera(map(numbered, range(5)), 40) as camera, open_source(camera.url, timeout=0.9) as source:
        list(source.frames())
        source._thread.join(5)
    away = [message for message in caplog.messages if ": still away after " in message]
    assert 3 <= len(away) <= 8  # 0.05 and 0.1, then 0.2 s each, and what is left of 0.9 s


def test_stop_ends_a_silent_live_source():
    with Camera(map(numbered, range(30)), 30, stall_at=3) as camera, open_source(camera.url) as source:
        threading.Timer(0.5, source.stop).start()
        assert len(list(source.frames())) <= 3


def test_password_is_kept_back(caplog):
    camera = Camera(map(numbered, range(3)), 30)
    with camera, open_source(camera.url.replace("//", "//me:secret@"), timeout=0.5) as source:
        list(source.frames())
    assert caplog.messages and not any("secret" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rtsp://me:secret@camera:554/a", "rtsp://camera:554/a"),
        ("rtsp://me:se/cr@et@camera/a", "rtsp://camera/a"),
        ("http://camera/video?user=me&pwd=secret", "http://camera/video?…"),
        ("http://camera/video", "http://camera/video"),
        ("rtsp://10.0.0.1:554/user=me&password=secret&channel=1", "rtsp://10.0.0.1:554/…"),
        ("what is this?.mp4", "what is this?.mp4"),
    ],
)
def test_without_secrets(source, name):
    assert without_secrets(source) == name


# Writing


@pytest.mark.parametrize("endless", [False, True])
def test_sink_begins_at_the_first_frames_time(tmp_path, endless):
    with VideoSink(tmp_path / "out.mp4", Fraction(25), endless) as sink:
        for number in range(60):
            sink.write(numbered(number), number / 25)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [float(frame.time) for frame in container.decode(video=0)][:3] == pytest.approx([0, 0.04, 0.08])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [NTSC, Fraction(25), Fraction(24000, 1001), Fraction(15875, 649), Fraction(1), Fraction(240)])
def test_sink_keeps_rate_and_frames(tmp_path, suffix, rate):
    path = tmp_path / f"out{suffix}"
    with VideoSink(path, rate) as sink:
        for number in range(8):
            sink.write(grey(30 * number), float(number / rate))
        assert not path.exists() and sink._partial.exists()
    with open_source(str(path)) as source:
        assert abs(source.rate - rate) < rate / 1000
        frames = list(source.frames())
    assert [round(frame.image.mean() / 30) for frame in frames] == list(range(8))
    # Matroska counts in milliseconds.
    assert [frame.time for frame in frames] == pytest.approx(
        [float(n / rate) for n in range(8)], abs=1e-6 if suffix == ".mp4" else 1e-3
    )
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("width", "height"), [(96, 64), (90, 62)])
def test_sink_keeps_colours(tmp_path, width, height):
    colours = [(0, 94, 213), (115, 158, 0), (178, 114, 0), (255, 255, 255), (0, 0, 0), (30, 60, 200)]  # BGR
    image = np.repeat(np.repeat(np.array([colours], np.uint8), width // 6, axis=1), height, axis=0)
    with VideoSink(tmp_path / "out.mp4", Fraction(25)) as sink:
        for number in range(3):
            sink.write(image, number / 25)
    for frame in frames_of(tmp_path / "out.mp4"):
        assert frame.image.shape == (height, width, 3)
        shown = frame.image[height // 2, width // 12 :: width // 6]
        assert np.abs(shown.astype(int) - colours).max() <= 6


def test_sink_rate_is_exact_for_ntsc(tmp_path):
    with VideoSink(tmp_path / "out.mp4", NTSC) as sink:
        for number in range(300):
            sink.write(grey(100), number * 1001 / 30000)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames) == (NTSC, 300)


@pytest.mark.parametrize("endless", [False, True])
def test_sink_can_be_read_before_it_is_finished(tmp_path, endless):
    with VideoSink(tmp_path / "out.mp4", Fraction(25), endless) as sink:
        for number in range(250):
            sink.write(grey(number), number / 25)
        with av.open(str(tmp_path / "out.partial.mp4")) as part:
            assert sum(1 for _ in part.decode(video=0)) >= 150
    frames = frames_of(tmp_path / "out.mp4")
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(250)])


def test_sink_of_a_slow_source_can_be_read_to_its_last_seconds(tmp_path):
    with VideoSink(tmp_path / "out.mp4", Fraction(30), endless=True) as sink:
        for number in range(100):
            sink.write(np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8), number / 4)
        with av.open(str(tmp_path / "out.partial.mp4")) as part:
            assert sum(1 for _ in part.decode(video=0)) >= 80  # of 25 s, five


def test_sink_keeps_what_a_killed_process_left(tmp_path, caplog):
    for name in ("out.partial.mp4", "out.partial-1.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    with VideoSink(tmp_path / "out.mp4", Fraction(25)) as sink:
        sink.write(grey(90), 0)
    assert (tmp_path / "out.partial-2.mp4").read_bytes() == b"out.partial.mp4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "out.partial-1.mp4", "out.partial-2.mp4"]
    partial = tmp_path / "out.partial.mp4"
    assert caplog.messages == [f"{partial}: was not finished; it is kept as {tmp_path}/out.partial-2.mp4"]


def test_sink_reports_an_image_that_is_too_large(tmp_path):
    with pytest.raises(InputError) as error, VideoSink(tmp_path / "out.mp4", Fraction(25)) as sink:
        sink.write(grey(90, 4, 20000), 0)
    assert str(error.value).startswith(f"{tmp_path}/out.mp4: cannot be written (")
    assert str(error.value).endswith("; try a smaller --width, or another suffix")


def test_sink_times_that_stand_still_grow(tmp_path):
    with VideoSink(tmp_path / "out.mp4", Fraction(25)) as sink:
        for moment in (0.0, 0.0, 0.0, 1.0, 0.5):
            sink.write(grey(100), moment)
    times = [frame.time for frame in frames_of(tmp_path / "out.mp4")]
    assert len(times) == 5 and times == sorted(times)


@pytest.mark.parametrize(
    ("first", "shape"), [((64, 96), (64, 96, 3)), ((65, 97), (64, 96, 3)), ((1, 1), (2, 2, 3)), ((1, 400), (2, 400, 3))]
)
def test_sink_fits_frames_of_another_size(tmp_path, first, shape):
    with VideoSink(tmp_path / "out.mp4", Fraction(25)) as sink:
        for number, size in enumerate([first, (30, 30), (1, 1), (200, 10), (480, 640), first]):
            sink.write(grey(200, *size), number / 25)
    frames = frames_of(tmp_path / "out.mp4")
    assert [frame.image.shape for frame in frames] == [shape] * 6


def test_fit_into_keeps_the_shape_on_black():
    fitted = fit_into(grey(200, 30, 30), 96, 64)
    assert (fitted[:, 16:80] == 200).all() and not fitted[:, :16].any() and not fitted[:, 80:].any()
    np.testing.assert_array_equal(fit_into(np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3), 8, 6)[-1, -1], [156, 157, 158])


def test_sink_is_finished_by_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoSink(tmp_path / "out.mp4", Fraction(25)) as sink:
        sink.write(grey(0), 0)
        raise KeyboardInterrupt
    assert len(frames_of(tmp_path / "out.mp4")) == 1


def test_sink_without_frames_leaves_nothing(tmp_path):
    with VideoSink(tmp_path / "out.mp4", Fraction(25)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' full device")
def test_sink_reports_a_full_disk(tmp_path, suffix, monkeypatch):
    full = tmp_path / f"out.partial{suffix}"
    full.symlink_to("/dev/full")
    monkeypatch.setattr("facemask.video.writer.fresh_partial_path", lambda path: full)  # which would refuse the link
    with pytest.raises(InputError) as error, VideoSink(tmp_path / f"out{suffix}", Fraction(25)) as sink:
        for number in range(200):
            sink.write(np.random.default_rng(number).integers(0, 256, (480, 640, 3), dtype=np.uint8), number / 25)
    assert str(error.value) == (
        f"{tmp_path}/out{suffix}: cannot be written (No space left on device); "
        f"what there is plays from {tmp_path}/out.partial{suffix}; free some space"
    )
    assert not (tmp_path / f"out{suffix}").exists()


@pytest.mark.parametrize(("name", "message"), [("out.gif", "use .mp4 or .mkv"), ("file/out.mp4", "file is not a folder")])
def test_sink_bad_output(tmp_path, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        VideoSink(tmp_path / name, Fraction(25))


def test_frames_of_too_many_pixels(video, tmp_path):
    with pytest.raises(InputError) as error:
        open_source(str(video), max_pixels=19_199)
    assert str(error.value) == f"{video}: 160 x 120 pixels a frame are more than 19199; give --max-pixels more"
    with open_source(str(video), max_pixels=19_200) as source:
        assert next(source.frames()).image.shape == (120, 160, 3)


def test_image_of_too_many_pixels(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 100), np.uint8))
    with (
        pytest.raises(InputError, match="100 x 100 pixels are more than 9999"),
        open_source(str(tmp_path), max_pixels=9_999) as source,
    ):
        list(source.frames())


@pytest.mark.parametrize(
    ("platform", "source", "opens", "asked"),
    [
        ("linux", 0, {()}, [()]),
        ("win32", 0, {(cv2.CAP_DSHOW,)}, [(cv2.CAP_DSHOW,)]),
        ("win32", 0, {(cv2.CAP_ANY,)}, [(cv2.CAP_DSHOW,), (cv2.CAP_ANY,)]),
        ("win32", 0, set(), [(cv2.CAP_DSHOW,), (cv2.CAP_ANY,)]),
        ("win32", "a.avi", {()}, [()]),
        ("darwin", 0, {(cv2.CAP_AVFOUNDATION,)}, [(cv2.CAP_AVFOUNDATION,)]),
        ("darwin", 0, {()}, [(cv2.CAP_AVFOUNDATION,)]),
    ],
)
def test_each_platform_opens_cameras_in_its_own_way(monkeypatch, platform, source, opens, asked):
    tried = []

    class Capture:
        def __init__(self, source: int | str, *backend: int) -> None:
            tried.append(backend)
            self.isOpened = lambda: backend in opens

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert open_camera(source, platform).isOpened() == (tried[-1] in opens)
    assert tried == asked
