import hashlib

import pytest

from facemask.errors import InputError
from facemask.files import atomic_path, check_outputs, check_writable, sha256, text_output


def test_atomic_path_when_done(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_path_after_error_keeps_the_old(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("keep", "name"), [(False, "a.partial.txt"), (True, "a.txt")])
def test_text_output_after_error_keeps_what_was_done(tmp_path, keep, name):
    with pytest.raises(KeyboardInterrupt), text_output(tmp_path / "a.txt", keep=keep) as file:
        print("first", file=file)
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "first\n")]


def test_text_output_after_error_with_nothing_written_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), text_output(tmp_path / "a.txt"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("", "is a folder; give a file name", id="folder"),
        pytest.param("none/a.txt", "does not exist; make it first", id="no folder"),
        pytest.param("file/a.txt", "does not exist; make it first", id="file as folder"),
    ],
)
def test_check_writable_refuses(tmp_path, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        check_writable(tmp_path / name)


@pytest.mark.parametrize("names", [["in.jpg"], ["sub/../in.jpg"], ["a.json", "a.json"]])
def test_check_outputs_refuses(tmp_path, names):
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="is an input, or another output too; choose another name for it"):
        check_outputs([tmp_path / name for name in names], [tmp_path / "in.jpg"])


def test_check_writable_makes_nothing(tmp_path):
    check_writable(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
