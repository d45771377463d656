import hashlib
from contextlib import suppress

import pytest
from onnx import TensorProto, helper

from facemask.errors import InputError
from facemask.models.model_file import (
    MAX_MODEL,
    ModelFile,
    as_model_file,
    checksum,
    read_onnx_metadata,
    read_operators,
    sha256,
    with_checksum,
)
from tests.helpers import CORRUPT, ROOT

METADATA = {"classes": '["a", "b"]', "name": "Müller " * 99, "empty": ""}


@pytest.fixture
def model() -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    proto = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other]))
    helper.set_model_props(proto, METADATA)
    return proto.SerializeToString()


def test_read_onnx_metadata(model):
    assert read_onnx_metadata(model) == METADATA


def test_read_onnx_metadata_truncated_anywhere(model):
    for length in range(len(model)):
        with suppress(ValueError):  # allowed: it reports that the model is truncated
            assert read_onnx_metadata(model[:length]).items() <= METADATA.items()


@pytest.mark.parametrize("data", [b"\xff" * 50, b"\x77garbage", b"PK\x03\x04 a zip file"])
def test_read_onnx_metadata_of_other_files(data):
    with pytest.raises(ValueError):
        read_onnx_metadata(data)


def test_read_operators_of_a_shipped_network():
    model = (ROOT / "mask_detector.onnx").read_bytes()
    assert read_operators(model) == {"Add", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "Mul", "Softmax"}


@pytest.mark.parametrize(
    ("part", "operators"),
    [
        pytest.param(b"\x3a\x08\x0a\x06\x22\x04Tanh", {"Tanh"}, id="another graph"),
        pytest.param(b"\x3a\x0d\x0a\x0b\x22\x03max\x3a\x04Soft", {"Soft.max"}, id="another domain"),
        pytest.param(b"\xca\x01\x00", {"functions"}, id="functions"),
        pytest.param(b"\x3a\x0c\x8a\x80\x80\x80\x10\x06\x22\x04Tanh", None, id="a node's tag with more than 32 bits"),
        pytest.param(b"\xba\x80\x80\x80\x70\x08\x0a\x06\x22\x04Tanh", None, id="a graph's tag with more than 32 bits"),
    ],
)
def test_read_operators_that_are_hidden(part, operators):
    """An operator that protobuf would read is found, or the file is refused."""
    if operators is None:
        with pytest.raises(ValueError, match="no field has this number"):
            read_operators(part)
    else:
        assert read_operators(part) == operators


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_read_whole(tmp_path, model):
    data = with_checksum(model)
    (tmp_path / "m").write_bytes(data)
    file = ModelFile.read(tmp_path / "m")
    assert (file.path, file.data, file.sha256) == (tmp_path / "m", data, hashlib.sha256(data).hexdigest())
    assert file.metadata == METADATA | {"sha256": checksum(data[:-64]).decode()}
    assert as_model_file(file) is file and as_model_file(tmp_path / "m") == file


def test_metadata_of_another_file(tmp_path):
    (tmp_path / "m").write_bytes(b"\xffmodel" + checksum(b"\xffmodel"))
    with pytest.raises(ValueError):
        _ = ModelFile.read(tmp_path / "m").metadata


@pytest.mark.parametrize("data", [b"", b"model", b"x" * 64, checksum(b"model"), b"model" + checksum(b"other")])
def test_read_corrupt(tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(InputError) as error:
        ModelFile.read(tmp_path / "m")
    assert str(error.value) == f"{tmp_path}/m: {CORRUPT}"


def test_read_too_large(tmp_path):
    with open(tmp_path / "m", "wb") as file:
        file.truncate(MAX_MODEL + 1)
    with pytest.raises(InputError) as error:
        ModelFile.read(tmp_path / "m")
    assert str(error.value) == f"{tmp_path}/m: 0.3 GB are too many for a model of this project; give another"


def test_read_missing(tmp_path):
    with pytest.raises(InputError) as error:
        ModelFile.read(tmp_path / "m")
    assert str(error.value) == f"{tmp_path}/m: cannot be read (No such file or directory); check the name"
    with pytest.raises(InputError, match="not a regular file; give a model of this project"):
        ModelFile.read(tmp_path)
