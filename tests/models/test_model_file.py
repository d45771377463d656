from contextlib import suppress

import onnx
import pytest
from onnx import TensorProto, helper

from facemask.models.model_file import read_onnx_metadata, read_operators
from tests.helpers import ROOT


@pytest.fixture
def model(tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    proto = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other]))
    helper.set_model_props(proto, {"classes": '["a", "b"]', "name": "Müller " * 99, "empty": ""})
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_read_onnx_metadata(model):
    assert read_onnx_metadata(model) == {"classes": '["a", "b"]', "name": "Müller " * 99, "empty": ""}


def test_read_onnx_metadata_truncated_anywhere(model):
    data = model.read_bytes()
    whole = read_onnx_metadata(model)
    for length in range(len(data)):
        model.write_bytes(data[:length])
        with suppress(ValueError):  # the other outcome allowed: it says so
            assert read_onnx_metadata(model).items() <= whole.items()


@pytest.mark.parametrize("data", [b"\xff" * 50, b"\x77garbage", b"PK\x03\x04 a zip file"])
def test_read_onnx_metadata_of_other_files(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError):
        read_onnx_metadata(tmp_path / "x")


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
    """What protobuf reads as an operator is seen, or the file is refused."""
    if operators is None:
        with pytest.raises(ValueError, match="no field has this number"):
            read_operators(part)
    else:
        assert read_operators(part) == operators
