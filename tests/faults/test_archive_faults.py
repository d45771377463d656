"""The table "Archives" of docs/errors.md, row by row. None of them starts Ray."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [archive]: pip install -r requirements-archive.txt")

import pyarrow as pa
from pyarrow import parquet as pq

import detect_mask_archive
from facemask.__main__ import main as facemask_main
from facemask.archive.parts import Output
from facemask.archive.tables import FACES, Row
from tests.faults.fault_table import FaultTable, Run, copy_image, write

pytestmark = pytest.mark.archive
TABLE = FaultTable("Archives")
ERROR = Row({"image": "a.jpg", "error": "a.jpg: the file is empty; copy it again"})


def run(*arguments: str) -> Run:
    return Run([*arguments, "-o", "out"], detect_mask_archive.main)


def earlier_results(options: dict) -> Output:
    output = Output("out", "parquet")
    output.write_json("run.json", {"run": "a", "options": options})
    output.write_part(FACES, "0" * 32, 0, False, [ERROR])
    return output


@TABLE.case("a web address")
def web_address(folder):
    return run("-i", "https://example.org/a.jpg")


@TABLE.case("an address whose scheme is unknown")
def unknown_scheme(folder):
    return run("-i", "nothing://bucket/a.jpg")


@TABLE.case("an option in an address that is unknown")
def unknown_option(folder):
    return run("-i", "s3://photos/a.jpg?endpoint=localhost")


@TABLE.case("a pattern for buckets")
def pattern_of_buckets(folder):
    return run("-i", "s3://photos*.jpg")


@TABLE.case("images and videos")
def images_and_videos(folder):
    return run("-i", copy_image("a.jpg"), "a.mp4")


@TABLE.case("an option of images, for videos")
def option_of_images(folder):
    return run("-i", "a.mp4", "--turns", "off")


@TABLE.case("a Parquet file without images")
def no_column(folder):
    pq.write_table(pa.table({"number": [1]}), "a.parquet")
    return run("-i", "a.parquet")


@TABLE.case("a Parquet column of another type")
def other_column(folder):
    pq.write_table(pa.table({"number": [1]}), "a.parquet")
    return run("-i", "a.parquet", "--column", "number")


@TABLE.case("an output that holds results, without --resume")
def no_resume(folder):
    earlier_results({})
    return run("-i", copy_image("a.jpg"))


@TABLE.case("--resume with another option")
def other_option(folder):
    given = detect_mask_archive.build_parser().parse_args(["-i", "a.jpg", "-o", "out"])
    options = {name: getattr(given, name) for name in detect_mask_archive.SAME} | {"tiles": "auto", "turns": "auto"}
    earlier_results(json.loads(json.dumps(options | detect_mask_archive.model_sums(given))))
    return run("-i", copy_image("a.jpg"), "--resume", "--confidence", "0.4")


@TABLE.case("`--address` at which nothing answers")
def no_cluster(folder):
    return run("-i", copy_image("a.jpg"), "--address", "127.0.0.1:1")


@TABLE.case("`select` of a folder without results")
def no_results(folder):
    Path("photos").mkdir()
    return Run(["select", "photos", "-o", "new"], facemask_main)


@TABLE.case("`select` of results without a face")
def no_face(folder):
    earlier_results({"format": "parquet"})
    return Run(["select", "out", "-o", "new"], facemask_main)


@TABLE.case("a part of another program in the results")
def other_part(folder):
    output = earlier_results({"format": "parquet"})
    _, (path,) = output.parts(FACES)
    write(path, b"PAR1 no Parquet")
    return Run(["select", "out", "-o", "new"], facemask_main)


def test_each_row_has_a_case_and_each_case_a_row():
    TABLE.check_complete()


@pytest.mark.parametrize("row", TABLE.parameters())
def test_row(row, tmp_path, capsys, monkeypatch):
    TABLE.check_row(row, tmp_path, capsys, monkeypatch)
