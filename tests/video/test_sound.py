"""The sound of a file beside the annotated video: packets unchanged, at their times from the first frame."""

import logging
import os
import shutil
import threading
from itertools import islice
from pathlib import Path

import av
import pytest

from facemask.video.sound import Sound
from facemask.video.sources import LiveSource, open_source
from facemask.video.writer import VideoSink
from tests.helpers import numbered, write_sound_video

RATE, SAMPLE_RATE = 25, 16000
MATROSKA_TICK = 0.001  # s


def annotate(path: Path, out: Path, stride: int = 1, max_frames: int | None = None) -> None:
    """Write the frames of a video, and its sound, as a run does."""
    with (
        open_source(str(path), stride=stride) as source,
        VideoSink(out, source.output_fps, sound=source.open_sound()) as sink,
    ):
        for frame in islice(source.frames(), max_frames):
            sink.write(frame.image, frame.time)


def read_sound(path: Path) -> list[tuple[float, bytes]]:
    """Return each packet of sound, with its time in s from the first frame, and all frames decoded."""
    with av.open(str(path)) as container:
        first = float(next(container.decode(video=0)).time)
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base) - first, payload(packet))
            for packet in container.demux(audio=0)
            if packet.size and packet.pts is not None
        ]


def payload(packet: av.Packet) -> bytes:
    """Return what a packet holds, without the header (ADTS) that AAC has in a transport stream."""
    data = bytes(packet)
    return data[7:] if data.startswith(b"\xff\xf1") else data


def assert_same(copied: list[tuple[float, bytes]], original: list[tuple[float, bytes]], tolerance: float) -> None:
    assert [data for _, data in copied] == [data for _, data in original]
    assert [time for time, _ in copied] == pytest.approx([time for time, _ in original], abs=tolerance)


@pytest.mark.parametrize(
    ("codec", "name", "suffix"),
    [
        ("aac", "a.mp4", ".mp4"),
        ("aac", "a.mp4", ".mkv"),
        ("aac", "a.ts", ".mp4"),
        ("aac", "a.ts", ".mkv"),
        ("mp2", "a.mpg", ".mp4"),
        ("flac", "a.mkv", ".mp4"),
        ("flac", "a.mkv", ".mkv"),
        ("pcm_s16le", "a.mkv", ".mp4"),
        ("pcm_s16le", "a.avi", ".mkv"),
    ],
)
def test_sound_is_copied_unchanged(tmp_path, codec, name, suffix, caplog):
    path, out = write_sound_video(tmp_path / name, 60, codec), tmp_path / f"out{suffix}"
    annotate(path, out)
    is_matroska = suffix == ".mkv" or name.endswith(".mkv")
    assert len(read_sound(path)) > 20
    assert_same(read_sound(out), read_sound(path), MATROSKA_TICK if is_matroska else 1 / SAMPLE_RATE)
    with av.open(str(out)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / SAMPLE_RATE == pytest.approx(2.4, abs=0.15)
    assert caplog.messages == []


def test_sound_of_mp4_begins_and_ends_exactly_as_it_did(tmp_path):
    """The encoder's delay, which is before the first frame, is kept and dropped again by players."""
    path, out = write_sound_video(tmp_path / "a.mp4", 30), tmp_path / "out.mp4"
    annotate(path, out)
    assert read_sound(path)[0][0] == -1024 / SAMPLE_RATE
    assert_same(read_sound(out), read_sound(path), 1e-9)


def test_sound_beside_every_third_frame(tmp_path):
    path, out = write_sound_video(tmp_path / "a.mp4", 60), tmp_path / "out.mp4"
    annotate(path, out, stride=3)
    with av.open(str(out)) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([n / RATE for n in range(0, 60, 3)])
    assert_same(read_sound(out), read_sound(path), 1e-9)


def test_sound_goes_on_after_the_last_frame_of_the_file(tmp_path):
    path, out = write_sound_video(tmp_path / "a.mp4", 25, sound=2.5), tmp_path / "out.mp4"
    annotate(path, out)
    assert read_sound(out)[-1][0] > 2.4
    assert_same(read_sound(out), read_sound(path), 1e-9)


@pytest.mark.parametrize(("stride", "max_frames", "end"), [(1, 10, 0.4), (3, 10, 1.2)])
def test_sound_ends_with_the_last_frame_asked_for(tmp_path, stride, max_frames, end):
    path, out = write_sound_video(tmp_path / "a.mp4", 60), tmp_path / "out.mp4"
    annotate(path, out, stride, max_frames)
    assert_same(read_sound(out), [packet for packet in read_sound(path) if packet[0] < end], 1e-9)


def test_sound_before_the_first_frame_is_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, out = write_sound_video(tmp_path / "a.mkv", 25, "pcm_s16le", first=1.0), tmp_path / "out.mkv"
    annotate(path, out)
    sound = read_sound(path)
    kept = [packet for packet in sound if packet[0] >= -0.1]
    assert_same(read_sound(out), kept, MATROSKA_TICK)
    left_out = len(sound) - len(kept)
    assert caplog.messages == [f"{path}: {left_out} packets of its sound, before the first frame or out of order, are not copied"]


def test_sound_that_the_container_cannot_hold(tmp_path, caplog):
    path, out = write_sound_video(tmp_path / "a.mkv", 10, "pcm_u8"), tmp_path / "out.mp4"
    annotate(path, out)
    with av.open(str(out)) as container:
        assert len(container.streams) == 1
        assert len(list(container.decode(video=0))) == 10
    assert caplog.messages == [f"{path}: its sound (pcm_u8) is not copied: .mp4 cannot hold it; try .mkv"]
    annotate(path, tmp_path / "out.mkv")
    assert_same(read_sound(tmp_path / "out.mkv"), read_sound(path), MATROSKA_TICK)


def test_sound_that_fails_does_not_end_the_video(tmp_path, caplog, monkeypatch):
    path, out = write_sound_video(tmp_path / "a.mp4", 30), tmp_path / "out.mp4"
    packets = Sound.packets

    def broken(self, until):
        for packet in packets(self, until):
            packet.dts = packet.pts + SAMPLE_RATE  # which no container takes
            yield packet

    monkeypatch.setattr(Sound, "packets", broken)
    annotate(path, out)
    with av.open(str(out)) as container:
        assert len(list(container.decode(video=0))) == 30
    assert len(caplog.messages) == 1 and "the rest of its sound is not copied" in caplog.messages[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("seconds", [None, 0.5])
def test_unfinished_file_plays_with_sound(tmp_path, suffix, seconds):
    """Frames do not wait for sound that has ended before them."""
    path = write_sound_video(tmp_path / "a.mp4", 200, sound=seconds)
    with (
        open_source(str(path)) as source,
        VideoSink(tmp_path / f"out{suffix}", source.output_fps, sound=source.open_sound()) as sink,
    ):
        for frame in source.frames():
            sink.write(frame.image, frame.time)
        killed = shutil.copy(tmp_path / f"out.partial{suffix}", tmp_path / f"killed{suffix}")
    with av.open(killed) as container:
        assert max(frame.time for frame in container.decode(video=0)) > 4
    with av.open(killed) as container:
        assert max(frame.time for frame in container.decode(audio=0)) > (4 if seconds is None else 0.4)


def test_sound_of_a_pipe_is_not_copied(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, fifo = write_sound_video(tmp_path / "a.mkv", 10, "pcm_s16le"), tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(path.read_bytes()))
    writer.start()
    annotate(fifo, tmp_path / "out.mkv")
    writer.join()
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert caplog.messages == [f"{fifo}: its sound is not copied; only that of files is"]


class Stream:
    """A stream with sound, that has no frame yet."""

    rate, has_sound = 25.0, True

    def read(self, wanted: bool = True) -> None:
        return None

    def close(self) -> None:
        pass


def test_sound_of_a_stream_is_not_copied(caplog):
    caplog.set_level(logging.INFO)
    with LiveSource("rtsp://camera/", 25, None, 1, Stream(), Stream, timeout=0) as source:
        assert source.open_sound() is None
    assert "rtsp://camera/: its sound is not copied; only that of files is" in caplog.messages


def test_no_sound_no_message(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=RATE)
        video.width, video.height, video.pix_fmt = 192, 64, "yuv420p"
        container.mux(video.encode(av.VideoFrame.from_ndarray(numbered(1), format="bgr24")))
        container.mux(video.encode())
    with open_source(str(tmp_path / "a.mp4")) as source:
        assert source.open_sound() is None
    assert caplog.messages == []
