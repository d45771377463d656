"""Networks whose weights are stored with 16 bits: half the download; they are computed with 32 bits as before."""

from pathlib import Path

MIN_VALUES = 256  # of a tensor that is stored so: below, nothing is saved


def half_weights(file: Path) -> bytes:
    """Return an ONNX file of float32 with its weights as float16, each before a Cast to float32, which runs once at loading."""
    import numpy as np
    from onnx import TensorProto, helper, load, numpy_helper

    model = load(file)
    graph, tensors, casts = model.graph, [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= MIN_VALUES:
            name = f"{tensor.name}_half"
            tensors.append(numpy_helper.from_array(values.astype(np.float16), name))
            casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
        else:
            tensors.append(tensor)
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:], model.metadata_props[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    return model.SerializeToString()
