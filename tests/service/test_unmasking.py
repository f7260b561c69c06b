"""Graphs that are told lengths instead of a mask: the same function of what the manifest states."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brigantine.model import GRAPH, Model
from brigantine.rewriting import prune
from brigantine.session import Session, SessionOptions
from brigantine.unmasking import LAST, ROOM, unmask
from onnx import TensorProto, helper, numpy_helper

from tests.parrot import parrot_model
from tests.scribble import CONFIG, scribble_model


def changed(folder: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    """The graph of a tiny language model, with a change."""
    path = scribble_model(folder) / GRAPH
    proto = onnx.load(path)
    change(proto.graph)
    onnx.save(proto, path)
    return path


def node_of(graph: onnx.GraphProto, kind: str) -> onnx.NodeProto:
    return next(node for node in graph.node if node.op_type == kind)


def test_lengths_are_taken_and_what_counted_the_mask_is_gone(tmp_path: Path):
    path = scribble_model(tmp_path) / GRAPH
    graph, before = onnx.load(path).graph, onnx.load(path).graph
    assert unmask(graph)
    prune(graph)

    names = [value.name for value in graph.input]
    assert names[-2:] == [LAST, ROOM] and "attention_mask" not in names
    assert [
        node.op_type
        for node in before.node
        if node not in graph.node and node.op_type != "GroupQueryAttention"
    ] == [
        "ReduceSum",
        "Sub",
        "Cast",
        "Shape",
        "Squeeze",
        "Cast",
    ]


def test_a_run_takes_what_the_manifest_states(tmp_path: Path):
    """A mask: of rows that are padded, behind a past or without one."""
    sessions = [
        Session.open(Model.open(scribble_model(tmp_path, name, masked=masked)), SessionOptions(device="cpu"))
        for name, masked in (("told", False), ("masked", True))
    ]
    assert [session.is_unmasked for session in sessions] == [True, False]
    rng = np.random.default_rng(0)
    heads = CONFIG["num_key_value_heads"]
    for past, length, lengths in ((0, 7, [7, 7]), (8, 1, [9, 4]), (8, 1, [2, 8])):
        feeds: dict[str, Any] = {
            "input_ids": rng.integers(0, 288, (2, length)),
            "attention_mask": (np.arange(past + length) < np.array(lengths)[:, None]).astype(np.int64),
        }
        for layer in range(CONFIG["num_hidden_layers"]):
            for part in ("key", "value"):
                values = rng.standard_normal((2, heads, past, 16), dtype=np.float32)
                feeds[f"past_key_values.{layer}.{part}"] = values
        told, expected = (session.run(feeds) for session in sessions)
        assert {name: values.tobytes() for name, values in told.items()} == {
            name: values.tobytes() for name, values in expected.items()
        }


def test_a_graph_with_no_such_attention_is_left_alone(tmp_path: Path):
    assert not unmask(onnx.load(parrot_model(tmp_path) / GRAPH).graph)


def counts_one_less(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "two"))
    node_of(graph, "Sub").input[1] = "two"


def keeps_the_axis(graph: onnx.GraphProto) -> None:
    node_of(graph, "ReduceSum").attribute[0].i = 1


def measures_rows(graph: onnx.GraphProto) -> None:
    shape = node_of(graph, "Shape")
    del shape.attribute[:]
    shape.attribute.extend([helper.make_attribute("start", 0), helper.make_attribute("end", 1)])


def shows_its_mask(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", ["attention_mask"], ["shown"]))
    graph.output.append(
        helper.make_tensor_value_info("shown", TensorProto.INT64, ["batch", "total_sequence"])
    )


def differs_by_layer(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array([3, 3], np.int32), "three"))
    node_of(graph, "GroupQueryAttention").input[5] = "three"


@pytest.mark.parametrize(
    "change", [counts_one_less, keeps_the_axis, measures_rows, shows_its_mask, differs_by_layer]
)
def test_a_mask_that_is_read_in_another_way_stays(tmp_path: Path, change: Callable[[onnx.GraphProto], None]):
    graph = onnx.load(changed(tmp_path, change)).graph
    before = graph.SerializeToString()
    assert not unmask(graph)
    assert graph.SerializeToString() == before
