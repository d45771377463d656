"""The table "Videos" of docs/errors.md, row by row."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.faults.fault_table import ASTRONAUT, FaultTable, Run, copy_image, needs_linux, write

pytestmark = needs_linux
TABLE = FaultTable("Videos")


def on_video(*arguments: str) -> Run:
    import detect_mask_video

    return Run(["-i", *arguments], script=detect_mask_video.main)


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


@TABLE.case("cut off: the rest is processed")
def cut_video(folder):
    image = cv2.resize(cv2.imread(str(ASTRONAUT)), (96, 96))
    writer = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 96))
    for _ in range(50):
        writer.write(image)
    writer.release()
    data = Path("v.avi").read_bytes()
    return on_video(write("v.avi", data[: len(data) // 2]), "--jsonl", "o.jsonl")


@TABLE.case("frames larger than --max-pixels 1000")
def large_frames(folder):
    writer = cv2.VideoWriter("v.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 96))
    writer.write(np.zeros((96, 96, 3), np.uint8))
    writer.release()
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


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
