from contextlib import suppress

import onnx
import pytest
from onnx import TensorProto, helper

from facemask.onnx_metadata import read_onnx_metadata


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
