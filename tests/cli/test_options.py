import argparse
import math
from pathlib import Path

import pytest

from facemask.cli import options
from facemask.cli.options import folder_limit, label_pair, listed_names, set_threshold
from facemask.errors import InputError


def test_listed_names_for_all_data_sets_and_for_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("a\n\n b \n")
    Path("x=y.txt").write_text("c\n")
    a, b = Path("a"), Path("b/c")
    assert listed_names([], [a, b]) == {a: None, b: None}
    assert listed_names(["train.txt"], [a, b]) == {a: ["a", "b"], b: ["a", "b"]}
    assert listed_names(["b/c/=train.txt"], [a, b]) == {a: None, b: ["a", "b"]}
    assert listed_names(["a=train.txt", "x=y.txt"], [a, b]) == {a: ["a", "b", "c"], b: ["c"]}
    with pytest.raises(InputError, match=r"^d=train.txt: cannot be read "):
        listed_names(["d=train.txt"], [a, b])


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        pytest.param(label_pair, "face=without_mask", ("face", "without_mask"), id="rename"),
        pytest.param(label_pair, "face=", ("face", ""), id="drop"),
        pytest.param(folder_limit, "a=b/c=12", (Path("a=b/c"), 12), id="limit"),
        pytest.param(folder_limit, "a=0", (Path("a"), 0), id="limit 0"),
        pytest.param(set_threshold, "a=b=0.3", (Path("a=b"), 0.3), id="IoU"),
    ],
)
def test_pairs(parse, text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (label_pair, "face"),
        (label_pair, "=x"),
        (folder_limit, "a"),
        (folder_limit, "a=-1"),
        (folder_limit, "=1"),
        (set_threshold, "a=2"),
    ],
)
def test_pairs_refuse(parse, text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"^must be "):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "inside", "outside", "expected"),
    [
        pytest.param(options.probability, {"0": 0, "1": 1, "0.5": 0.5}, ["-0.01", "1.01", "nan", "x"], "a number from 0 to 1", id="probability"),
        pytest.param(options.positive_number, {"1e-9": 1e-9, "7": 7}, ["0", "-1", "inf", "nan"], "a number above 0", id="positive number"),
        pytest.param(options.natural_number, {"0": 0, "2.5": 2.5, "inf": math.inf}, ["-1", "nan"], "a number from 0", id="natural number"),
        pytest.param(options.frame_rate, {"0.01": 0.01, "240": 240}, ["0.009", "241"], "a number from 0.01 to 240", id="frame rate"),
        pytest.param(options.positive_int, {"1": 1, "9" * 30: int("9" * 30)}, ["0", "1.5", ""], "a whole number from 1", id="positive int"),
        pytest.param(options.natural_int, {"0": 0}, ["-1", "0.5"], "a whole number from 0", id="natural int"),
        pytest.param(options.detector_size, {"64": 64, "4096": 4096}, ["63", "4097", "100.0"], "a whole number from 64 to 4096", id="size"),
    ],
)  # fmt: skip
def test_numbers(parse, inside, outside, expected):
    assert {text: parse(text) for text in inside} == inside
    for text in outside:
        with pytest.raises(argparse.ArgumentTypeError) as error:
            parse(text)
        assert str(error.value) == f"must be {expected}, received {text!r}"


def test_help_states_defaults_that_mean_something():
    parser = argparse.ArgumentParser(formatter_class=options.HelpFormatter)
    parser.add_argument("--margin", type=float, default=0.0, help="around a face")
    parser.add_argument("--size", default=3, help="side (default: as the image)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rename", action="append", default=[], help="rename classes")
    text = parser.format_help()
    assert "around a face (default: 0.0)\n" in text and "side (default: as the image)\n" in text
    assert "print JSON\n" in text and "rename classes\n" in text
