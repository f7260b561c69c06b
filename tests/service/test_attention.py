"""How a CPU attends: queries that are scaled by their weights, and each row apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from brigantine.attention import attends, attentive
from brigantine.blocks import attending
from brigantine.model import GRAPH, Model
from brigantine.session import Session, SessionOptions
from onnx import TensorProto, helper, numpy_helper

from tests.parrot import parrot_model
from tests.scribble import CONFIG, scribble_model

HEADS, GROUPS, SIZE, WIDTH, ROOM = 4, 2, 16, 24, 8


@pytest.fixture(autouse=True)
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose kernels this is for."""
    monkeypatch.setattr("brigantine.attention.platform.machine", lambda: "x86_64")


def graph_of(nodes: list[Any], weights: dict[str, np.ndarray], bias: bool = False) -> onnx.ModelProto:
    """A graph that attends once, [rows, tokens, WIDTH] to `y`; `nodes` make what it asks for of `x`."""

    def value(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    cache = "rows", GROUPS, ROOM, SIZE
    further = [value("bias", TensorProto.FLOAT, "rows", HEADS, "tokens", ROOM)] if bias else []
    graph = helper.make_graph(
        nodes,
        "attends",
        [
            value("x", TensorProto.FLOAT, "rows", "tokens", WIDTH),
            value("past_key", TensorProto.FLOAT, *cache),
            value("past_value", TensorProto.FLOAT, *cache),
            value("last", TensorProto.INT32, "rows"),
            value("room", TensorProto.INT32),
            *further,
        ],
        [
            value("y", TensorProto.FLOAT, "rows", "tokens", HEADS * SIZE),
            value("key", TensorProto.FLOAT, *cache),
            value("value", TensorProto.FLOAT, *cache),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def attends_to(query: str, key: str = "", value: str = "", bias: str = "", **attributes: Any) -> Any:
    inputs = [query, key, value, "past_key", "past_value", "last", "room"]
    return helper.make_node(
        "GroupQueryAttention",
        inputs + (["", "", "", bias] if bias else []),
        ["y", "key", "value"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=GROUPS,
        **attributes,
    )


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


PACKED = (HEADS + 2 * GROUPS) * SIZE


def packed(**attributes: Any) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["qkv"]), attends_to("qkv", **attributes)]
    return graph_of(nodes, {"w": drawn(WIDTH, PACKED)})


def kept_as_halves() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["w16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["qkv"]),
        attends_to("qkv"),
    ]
    return graph_of(nodes, {"w16": drawn(WIDTH, PACKED).astype(np.float16)})


def apart_with_biases() -> onnx.ModelProto:
    """As Qwen has it."""
    nodes: list[Any] = []
    weights: dict[str, np.ndarray] = {}
    for name, heads in (("q", HEADS), ("k", GROUPS), ("v", GROUPS)):
        nodes.append(helper.make_node("MatMul", ["x", f"w{name}"], [f"x{name}"]))
        nodes.append(helper.make_node("Add", [f"b{name}", f"x{name}"], [name]))
        weights |= {f"w{name}": drawn(WIDTH, heads * SIZE), f"b{name}": drawn(heads * SIZE)}
    return graph_of([*nodes, attends_to("q", "k", "v")], weights)


def ran(graph: bytes | str, feeds: dict[str, Any], in_blocks: bool = True) -> list[np.ndarray]:
    with attending(in_blocks):
        session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return [np.asarray(made) for made in session.run(None, feeds)]


def feeds(tokens: int) -> dict[str, Any]:
    rows = 2 if tokens == 1 else 1  # several that go on by several tokens it does not take
    past = drawn(rows, GROUPS, ROOM, SIZE)
    return {
        "x": drawn(rows, tokens, WIDTH),
        "past_key": past,
        "past_value": past + 1,
        "last": np.array([tokens + 2, tokens][:rows], np.int32),
        "room": np.array(ROOM, np.int32),
    }


@pytest.mark.parametrize(
    "made",
    [packed(), packed(scale=0.3), packed(scale=0.25, softcap=5.0), kept_as_halves(), apart_with_biases()],
    ids=["packed", "with a scale", "with a cap", "of halves", "with biases"],
)
@pytest.mark.parametrize("tokens", [1, 4])
def test_a_graph_whose_queries_are_scaled_attends_as_before(
    tmp_path: Path, made: onnx.ModelProto, tokens: int
):
    path = tmp_path / GRAPH
    onnx.save(made, path)
    anew = attentive(path)
    assert anew is not None and not anew.in_blocks
    proto = onnx.load_model_from_string(anew.graph).graph
    [node] = [node for node in proto.node if node.op_type == "GroupQueryAttention"]
    assert [item.f for item in node.attribute if item.name == "scale"] == [1.0]
    expected, given = ran(str(path), feeds(tokens)), ran(anew.graph, feeds(tokens), in_blocks=False)
    for before, after in zip(expected, given, strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_only_queries_are_scaled_and_exactly_where_the_scale_is_a_power_of_two(tmp_path: Path):
    path = tmp_path / GRAPH
    onnx.save(packed(), path)
    anew = attentive(path)
    assert anew is not None
    [scaled] = map(numpy_helper.to_array, onnx.load_model_from_string(anew.graph).graph.initializer)
    expected = drawn(WIDTH, PACKED)
    expected[:, : HEADS * SIZE] /= 4  # the root of 16
    np.testing.assert_array_equal(scaled, expected)


def reads_its_queries_twice() -> onnx.ModelProto:
    made = packed()
    made.graph.node.append(helper.make_node("Identity", ["qkv"], ["seen"]))
    made.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    return made


def makes_its_queries_otherwise() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["made"]),
        helper.make_node("Relu", ["made"], ["qkv"]),
        attends_to("qkv"),
    ]
    return graph_of(nodes, {"w": drawn(WIDTH, PACKED)})


def adds_what_is_no_weight() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["made"]),
        helper.make_node("Add", ["made", "made"], ["qkv"]),
        attends_to("qkv"),
    ]
    return graph_of(nodes, {"w": drawn(WIDTH, PACKED)})


def adds_one_number() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["made"]),
        helper.make_node("Add", ["made", "b"], ["qkv"]),
        attends_to("qkv"),
    ]
    return graph_of(nodes, {"w": drawn(WIDTH, PACKED), "b": drawn(1)})


def is_biased() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["qkv"]), attends_to("qkv", bias="bias")]
    return graph_of(nodes, {"w": drawn(WIDTH, PACKED)}, bias=True)


def normalises_its_queries() -> onnx.ModelProto:
    """As Qwen 3 has it: what comes out of a norm does not depend on a scale before it."""
    made = packed()
    made.graph.node[1].input.extend(["", "", "", "", "", "", "", "norm", "norm"])
    made.graph.initializer.append(numpy_helper.from_array(drawn(SIZE), "norm"))
    return made


def may_be_given_its_weight() -> onnx.ModelProto:
    made = packed()
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [WIDTH, PACKED]))
    return made


@pytest.mark.parametrize(
    "made",
    [
        reads_its_queries_twice, makes_its_queries_otherwise, adds_what_is_no_weight, adds_one_number, is_biased,
        may_be_given_its_weight, normalises_its_queries,
    ],
)  # fmt: skip
def test_what_cannot_be_scaled_by_weights_stays(tmp_path: Path, made: Callable[[], onnx.ModelProto]):
    path = tmp_path / GRAPH
    onnx.save(made(), path)
    ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])  # it is a graph
    assert attentive(path) is None


def test_other_processors_and_other_graphs_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert attentive(parrot_model(tmp_path) / GRAPH) is None
    path = tmp_path / GRAPH
    onnx.save(packed(), path)
    monkeypatch.setattr("brigantine.attention.platform.machine", lambda: "aarch64")
    assert attentive(path) is None


def test_with_one_attention_that_cannot_be_scaled_all_stay_in_blocks(tmp_path: Path):
    proto = onnx.load(scribble_model(tmp_path) / GRAPH)
    second = [node for node in proto.graph.node if node.op_type == "GroupQueryAttention"][1]
    [maker] = [node for node in proto.graph.node if second.input[0] in node.output]
    proto.graph.node.insert(
        list(proto.graph.node).index(second), helper.make_node("Identity", ["made"], [maker.output[0]])
    )
    maker.output[0] = "made"
    path = tmp_path / GRAPH
    onnx.save(proto, path)
    anew = attentive(path)
    assert anew is not None and anew.in_blocks


def test_large_heads_stay_in_blocks(tmp_path: Path):
    path = scribble_model(tmp_path, hidden_size=512, num_attention_heads=4, num_key_value_heads=2) / GRAPH
    anew = attentive(path)
    assert anew is not None and anew.in_blocks  # it is unmasked and unsplit


def test_who_attends_is_found_by_its_name(tmp_path: Path):
    assert attends(scribble_model(tmp_path) / GRAPH)
    assert not attends(parrot_model(tmp_path) / GRAPH)
    empty = tmp_path / "empty.onnx"
    empty.touch()
    assert not attends(empty)


def test_a_session_makes_the_same_logits(tmp_path: Path):
    """Of a whole language model, beside ONNX Runtime's with the file as it is."""
    model = Model.open(scribble_model(tmp_path))
    given: dict[str, Any] = {
        "input_ids": np.arange(14).reshape(2, 7) + 3,
        "attention_mask": np.array([[1] * 7, [1] * 5 + [0] * 2]),
    }
    nothing = np.zeros((2, CONFIG["num_key_value_heads"], 0, 16), np.float32)
    for layer in range(CONFIG["num_hidden_layers"]):
        given |= {f"past_key_values.{layer}.{part}": nothing for part in ("key", "value")}
    ours = Session.open(model, SessionOptions(device="cpu")).run(given)["logits"]
    theirs = ort.InferenceSession(str(model.graph), providers=["CPUExecutionProvider"])
    [expected] = theirs.run(["logits"], given)
    np.testing.assert_allclose(ours[0], np.asarray(expected)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours[1, :5], np.asarray(expected)[1, :5], rtol=1e-4, atol=1e-5)


def test_a_session_attends_without_blocks(tmp_path: Path):
    """To the bit as ONNX Runtime does that is told so, and not as the one that is not."""
    model = Model.open(scribble_model(tmp_path))
    anew = attentive(model.graph)
    assert anew is not None
    past = np.random.default_rng(0).standard_normal((1, CONFIG["num_key_value_heads"], 160, 16), np.float32)
    given: dict[str, Any] = {"input_ids": np.arange(9)[None] + 3}
    for layer in range(CONFIG["num_hidden_layers"]):
        given |= {f"past_key_values.{layer}.{part}": past for part in ("key", "value")}
    told = {"seqlens_k": np.array([148], np.int32), "total_sequence_length": np.array(160, np.int32)}
    without, within = (ran(anew.graph, given | told, in_blocks=one)[0].tobytes() for one in (False, True))
    session = Session.open(model, SessionOptions(device="cpu"))
    opened = session._engine.run(["logits"], given | told)[0].tobytes()
    assert opened == without != within
