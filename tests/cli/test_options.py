import argparse
from pathlib import Path

import pytest

from facemask.cli.options import folder_limit, label_pair, listed_names
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
    ],
)
def test_pairs(parse, text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text"),
    [(label_pair, "face"), (label_pair, "=x"), (folder_limit, "a"), (folder_limit, "a=-1"), (folder_limit, "=1")],
)
def test_pairs_refuse(parse, text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"^must be "):
        parse(text)
