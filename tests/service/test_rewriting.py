"""What is read of a graph, and what can be dropped."""

import numpy as np
from brigantine.rewriting import Tensors, prune, read
from onnx import GraphProto, TensorProto, helper, numpy_helper


def graph() -> GraphProto:
    """`y` is x + w; `u` and what it is made of is read by nobody, and `d` may be given."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "d", "y")]
    weights = {
        "w": np.ones(2, np.float16), "v": np.ones(2, np.float32), "d": np.ones(2, np.float32)
    }  # fmt: skip
    return helper.make_graph(
        [
            helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "w32"], ["y"]),
            helper.make_node("Add", ["y", "v"], ["u"]),
        ],
        "sums",
        values[:2],
        values[2:],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )


def test_what_is_read_leads_to_an_output():
    assert read(graph()) == {"y", "x", "w32", "w"}


def test_what_nobody_reads_is_dropped_but_for_the_default_of_an_input():
    pruned = graph()
    prune(pruned)
    assert [node.output[0] for node in pruned.node] == ["w32", "y"]
    assert [weight.name for weight in pruned.initializer] == ["w", "d"]


def test_a_weight_is_one_that_cannot_be_given_and_is_read_as_float32():
    tensors = Tensors(graph())
    found = {name: tensors.weight(name) for name in ("w32", "v", "w", "d", "x", "y")}
    assert [name for name, values in found.items() if values is not None] == ["w32", "v"]
    assert all(values.dtype == np.float32 for values in found.values() if values is not None)


def test_an_output_is_read_by_who_asks():
    tensors = Tensors(graph())
    assert [tensors.is_read_once(name) for name in ("w32", "y", "u")] == [True, False, False]


def test_a_new_weight_has_a_name_of_its_own():
    sums = graph()
    tensors = Tensors(sums)
    made = [tensors.add_weight(name, np.zeros(1, np.float32)) for name in ("y", "w", "w", "x", "new")]
    assert made == ["y_", "w_", "w__", "x_", "new"]
    assert [weight.name for weight in sums.initializer][-5:] == made


def test_what_is_cast_to_something_else_is_no_weight():
    sums = graph()
    sums.node[0].attribute[0].i = TensorProto.DOUBLE
    assert Tensors(sums).weight("w32") is None
