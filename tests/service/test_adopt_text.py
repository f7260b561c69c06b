"""`brigantine models import --plugin text`: language models of Hugging Face's kind, and what is none."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import brigantine.adopt_text
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from brigantine import cli
from brigantine.adopt_text import adopt_text
from brigantine.engine import Engine
from brigantine.errors import ModelInvalid
from brigantine.foreign import Choices
from brigantine.media import Media
from brigantine.model import Model
from brigantine.session import RuntimeMissing
from brigantine.settings import Settings
from brigantine.store import Store
from brigantine_training.language import foreign, tracing
from brigantine_training.language.graph import llama_graph
from onnx import helper, numpy_helper
from tokenizers import Tokenizer
from typer.testing import CliRunner

from tests.hub import CONTEXT, VOCABULARY, greedy, hub_folder
from tests.tiny import tiny_graph

PROMPTS = [[(7 * at + row) % VOCABULARY for at in range(length)] for row, length in enumerate((1, 9, 40, 60))]
CARD = "---\nlanguage: en\nlicense: apache-2.0\n---\n# A ship\n"
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module", autouse=True)
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model store of BentoML's own kind, for all tests of this file."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    folder = tmp_path_factory.mktemp("bentoml") / "models"
    folder.mkdir()
    with BentoMLContainer.model_store_dir.patch(str(folder)):
        yield folder


class Imported(NamedTuple):
    folder: Path
    network: Any
    model: Model
    output: str


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, store_folder: Path) -> Callable[[str], Imported]:
    """Imports a folder of this architecture with the command, once."""
    done: dict[str, Imported] = {}
    home = tmp_path_factory.mktemp("hub")

    def of(architecture: str) -> Imported:
        if architecture not in done:
            folder = home / f"My {architecture}"
            network = hub_folder(folder, architecture)
            (folder / "README.md").write_text(CARD)
            (folder / "chat_template.jinja").write_text(CHAT)
            done[architecture] = Imported(folder, network, *imported_by_command(folder))
        return done[architecture]

    return of


def imported_by_command(folder: Path, *options: str) -> tuple[Model, str]:
    ran = CliRunner().invoke(
        cli.app, ["models", "import", str(folder), "--plugin", "text", *options], catch_exceptions=False
    )
    assert ran.exit_code == 0, ran.output
    name = ran.output.partition("published ")[2].partition(":")[0]
    return Store().get(name).open(), ran.output


def served(name: str, *asked: dict[str, Any]) -> list[Media]:
    """What the engine makes of these requests at once."""
    engine = Engine.start(Settings(threads=1), only=name)

    async def all_of_them() -> list[Media]:
        made = await asyncio.gather(*(engine.generate(name, body) for body in asked))
        return [one.media[0] for one in made]

    try:
        return asyncio.run(all_of_them())
    finally:
        engine.close()


def asking(prompt: Sequence[int] = PROMPTS[1], length: int = 64, **others: Any) -> dict[str, Any]:
    return {"prompt": list(prompt), "max_tokens": length, "temperature": 0.0, "logprobs": 0, **others}


def pieces(media: Media) -> list[bytes]:
    return [bytes(token["bytes"]) for token in media.info["logprobs"]]


def pieces_of(model: Model, tokens: Sequence[int]) -> list[bytes]:
    from brigantine_text.tokens import Vocabulary

    known = Vocabulary(model.path).pieces
    assert len(set(known)) == VOCABULARY, "a piece would not tell its token"
    return [known[token] for token in tokens]


@pytest.mark.usefixtures("on_cpu")  # in half precision another token may come first by a hair
@pytest.mark.parametrize("architecture", ["GPT2", "Llama", "Qwen2", "Mistral"])
def test_greedy_text_is_that_of_transformers_token_for_token(
    imported: Callable[[str], Imported], architecture: str
):
    found = imported(architecture)

    made = served(found.model.name, *(asking(prompt) for prompt in PROMPTS))  # beside each other

    for prompt, media in zip(PROMPTS, made, strict=True):
        expected = greedy(found.network, prompt, 64)
        assert len(set(expected)) > 8, "a text that could be right by chance"
        assert pieces(media) == pieces_of(found.model, expected)
    operators = {node.op_type for node in onnx.load(found.model.graph).graph.node}
    assert "GroupQueryAttention" in operators


@pytest.mark.parametrize("architecture", ["GPT2", "Llama"])
def test_a_row_is_the_same_alone_and_in_a_batch(imported: Callable[[str], Imported], architecture: str):
    name = imported(architecture).model.name
    asked = [
        asking(prompt, length, seed=row, temperature=1.0)
        for row, (prompt, length) in enumerate(zip(PROMPTS, (60, 9, 30, 50), strict=True))
    ]

    together = served(name, *asked)

    assert [(one.body, one.info) for one in together] == [
        (one.body, one.info) for body in asked for one in served(name, body)
    ]


@pytest.mark.usefixtures("on_cpu")
def test_a_conversation_is_written_by_the_template_of_the_folder(imported: Callable[[str], Imported]):
    found = imported("Llama")
    messages = [{"role": "user", "content": "the wind"}]
    written = "<user>the wind\n<assistant>"
    prompt = Tokenizer.from_file(str(found.folder / "tokenizer.json")).encode(written).ids

    [media] = served(
        found.model.name, {"messages": messages, "max_tokens": 20, "temperature": 0.0, "logprobs": 0}
    )

    assert media.info["usage"]["prompt_tokens"] == len(prompt)
    assert pieces(media) == pieces_of(found.model, greedy(found.network, prompt, 20))


@pytest.mark.parametrize(("architecture", "exporter"), [("GPT2", "traced"), ("Llama", "written")])
def test_the_manifest_says_what_was_imported(
    imported: Callable[[str], Imported], architecture: str, exporter: str
):
    import transformers

    found = imported(architecture)

    manifest = found.model.manifest
    assert (manifest.name, manifest.plugin, manifest.max_batch) == (f"my-{architecture.lower()}", "text", 16)
    assert (manifest.description, manifest.licence) == (f"Imported from My {architecture}.", "apache-2.0")
    assert manifest.training == {
        "imported_from": f"My {architecture}",
        "architecture": type(found.network).__name__,
        "exporter": exporter,
        "attention": "GroupQueryAttention",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    assert set(manifest.files) == {
        "model.onnx", "tokenizer.json", "config.json", "generation_config.json", "chat_template.jinja"
    }  # fmt: skip
    ids = next(spec for spec in manifest.inputs if spec.name == "input_ids")
    past = next(spec for spec in manifest.inputs if spec.name == "past_key_values.0.key")
    assert (ids.dtype, ids.shape) == ("int64", ("batch", "sequence"))
    assert past.shape == ("batch", 4 if architecture == "GPT2" else 2, "past_sequence", past.shape[3])
    assert {"1x1+0", "1x32+0", "1x8+32", "4x1+1..70"} <= set(manifest.parity)
    assert 0 < max(manifest.parity.values()) < 1e-4
    assert b"site-packages" not in found.model.graph.read_bytes(), "the places of sources on this machine"
    assert f"a context of {CONTEXT} tokens; exported and compared with its network" in found.output


def copied(imported: Imported, folder: Path) -> Path:
    """The folder, without its weights and its graph."""
    shutil.copytree(imported.folder, folder, ignore=lambda _, names: [n for n in names if "safetensors" in n])
    return folder


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def exporter_of(plugin: str) -> None:
        raise AssertionError("nothing is to be exported")

    monkeypatch.setattr(brigantine.adopt_text, "exporter_of", exporter_of)


@pytest.fixture(scope="module")
def plain_graph(tmp_path_factory: pytest.TempPathFactory, imported: Callable[[str], Imported]) -> Path:
    """A graph whose cache grows by being copied, as it is traced without an operator for attention."""
    folder = imported("GPT2").folder
    with foreign._quiet():
        network = foreign._load(folder)
        sizes = foreign._sizes(folder, network)
        with tracing._masks_by_position():
            made = tracing._exported(network, sizes)
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    onnx_ir.save(made, path)
    return path


@pytest.fixture
def optimum_folder(tmp_path: Path, imported: Callable[[str], Imported], plain_graph: Path) -> Path:
    """As optimum has them: onnx/model.onnx beside the small files."""
    folder = copied(imported("GPT2"), tmp_path / "Theirs")
    (folder / "onnx").mkdir()
    shutil.copy(plain_graph, folder / "onnx")
    return folder


@pytest.fixture
def genai_folder(tmp_path: Path, imported: Callable[[str], Imported]) -> Path:
    """As onnxruntime-genai's builder writes them: weights beside the graph, and no config.json."""
    found = imported("Llama")
    folder = tmp_path / "built"
    folder.mkdir()
    weights = {name: weight.numpy() for name, weight in found.network.state_dict().items()}
    graph = llama_graph(found.network.config.to_dict(), weights, half=False)
    for value in (*graph.graph.input, *graph.graph.output):
        if "key_values" in value.name or "present" in value.name:
            value.type.tensor_type.shape.dim[3].dim_param = "kv_cache_dim"
    onnx.save_model(graph, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    decoder = {"filename": "model.onnx", "head_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    facts = {"type": "llama", "context_length": CONTEXT, "bos_token_id": 0, "eos_token_id": [3, 287]}
    (folder / "genai_config.json").write_text(json.dumps({"model": facts | {"decoder": decoder}}))
    shutil.copy(found.folder / "tokenizer.json", folder)
    return folder


def test_a_folder_that_optimum_exported_is_taken_as_it_is(
    optimum_folder: Path, imported: Callable[[str], Imported], no_export: None
):
    model, output = imported_by_command(optimum_folder, "--name", "theirs.1", "--description", "A ship.")

    [media] = served("theirs.1", asking())

    assert pieces(media) == pieces_of(model, greedy(imported("GPT2").network, PROMPTS[1], 64))
    assert model.graph.read_bytes() == (optimum_folder / "onnx" / "model.onnx").read_bytes()
    assert model.manifest.description == "A ship."
    assert model.manifest.training["producer"].startswith("pytorch")
    assert "its graph as it is, run whole and in steps" in output
    assert "its graph has no GroupQueryAttention" in output
    assert "GroupQueryAttention" not in imported("GPT2").output


def test_a_folder_of_onnxruntime_genai_is_taken_as_it_is(
    genai_folder: Path, imported: Callable[[str], Imported], no_export: None
):
    model, _ = imported_by_command(genai_folder)

    made = served("built", *(asking(prompt) for prompt in PROMPTS))

    for prompt, media in zip(PROMPTS, made, strict=True):
        expected = greedy(imported("Llama").network, prompt, 64)
        ends = [at for at, token in enumerate(expected) if token in (3, 287)]
        assert pieces(media) == pieces_of(model, expected[: ends[0] + 1] if ends else expected)
    assert set(model.manifest.files) == {"model.onnx", "model.onnx.data", "tokenizer.json", "config.json"}
    config = json.loads((model.path / "config.json").read_text())
    assert config == {"bos_token_id": 0, "eos_token_id": [3, 287], "max_position_embeddings": CONTEXT}
    assert model.manifest.inputs[2].shape == ("batch", 2, "past_sequence", 16)
    assert model.manifest.training["architecture"] == "llama"


@pytest.mark.parametrize(
    ("stated", "cache"),
    [
        ({"num_attention_heads": 4, "hidden_size": 64, "num_key_value_heads": 2}, (2, 16)),
        ({"num_attention_heads": 4, "hidden_size": 64, "head_dim": 24}, (4, 24)),
        ({"n_head": 4, "n_embd": 64}, (4, 16)),
        ({}, (None, None)),
    ],
)
def test_the_sizes_of_the_cache_are_those_of_the_configuration(
    tmp_path: Path, stated: dict[str, int], cache: tuple[int | None, int | None]
):
    (tmp_path / "config.json").write_text(json.dumps({"text_config": stated}))

    assert brigantine.adopt_text._Settings.read(tmp_path).cache == cache


def test_no_torch_is_needed_for_a_graph(optimum_folder: Path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'brigantine_training')));"
        "from pathlib import Path; from brigantine.adopt_text import adopt_text;"
        "from brigantine.foreign import Choices; print(adopt_text(Path(sys.argv[1]), Choices()).tag)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(optimum_folder)], capture_output=True, text=True, check=False
    )

    assert ran.stdout.startswith("theirs:"), ran.stderr
    assert "[E:onnxruntime" not in ran.stderr, "trying how the cache is kept is nobody's business"


def test_a_long_window_that_cannot_be_tried_shortens_the_context(
    optimum_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(brigantine.adopt_text, "LONGEST_WINDOW", 50)
    change(optimum_folder / "config.json", sliding_window=100)

    adopted = adopt_text(optimum_folder, Choices())

    model = Store().get(adopted.tag.partition(":")[0]).open()
    assert json.loads((model.path / "config.json").read_text())["max_position_embeddings"] == 36
    _, doubt = adopted.doubts
    assert doubt.startswith("its attention sees 100 tokens back") and "36 instead of 128" in doubt


def change(file: Path, **values: Any) -> None:
    """Set these in a file of JSON; None takes one out."""
    table = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))


def refused(folder: Path, **choices: Any) -> str:
    before = Store().find()
    with pytest.raises(ModelInvalid) as caught:
        adopt_text(folder, Choices(**choices))
    assert Store().find() == before
    message = str(caught.value)
    assert "expected" in message and "got" in message and "; " in message, message
    return message


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "theirs"
    hub_folder(folder, "Llama")
    return folder


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def with_code(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Ours"})


def with_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_few_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def quantised(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "gptq"})


def an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def unheard_of(folder: Path) -> None:
    change(folder / "config.json", model_type="unheard", architectures=["UnheardForCausalLM"])


def without_context(folder: Path) -> None:
    change(folder / "config.json", max_position_embeddings=None)


def with_an_end_too_far(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[1, VOCABULARY])


def with_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def with_an_unknown_graph(folder: Path) -> None:
    (folder / "decoder_model.onnx").touch()


REFUSED = [
    (without_tokenizer, "expected a tokenizer of the library tokenizers, got none; write one with transformers"),
    (with_code, "got code of its own (auto_map: modeling.Ours), which is not run"),
    (with_pickles, "got pytorch_model.bin, pickles, which can run any code; if you trust them, load them"),
    (without_weights, "expected weights as *.safetensors, got none; copy them"),
    (with_few_weights, "expected all weights of LlamaForCausalLM, got them without lm_head.weight; copy all files"),
    (quantised, "expected plain weights, got weights that are quantised by gptq"),
    (an_adapter, "expected a whole model, got an adapter (adapter_config.json); merge it"),
    (unheard_of, "model type `unheard`"),
    (without_context, "expected how many tokens the model reads, as one of max_position_embeddings, n_positions"),
    (with_an_end_too_far, "eos_token_id: expected tokens under 288, got [1, 288]; correct it"),
    (with_no_json, "config.json: expected JSON, got"),
    (with_an_unknown_graph, "expected a graph called model.onnx or onnx/model.onnx, got decoder_model.onnx; rename"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "reason"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_folder_that_cannot_be_served_is_refused_with_a_remedy(
    tmp_path: Path, weights_folder: Path, spoil: Callable[[Path], None], reason: str
):
    folder = tmp_path / "theirs"
    shutil.copytree(weights_folder, folder)
    spoil(folder)

    assert reason in refused(folder)


def test_what_keeps_no_keys_and_values_is_refused(tmp_path: Path):
    hub_folder(tmp_path / "mamba", "Mamba")
    change(tmp_path / "mamba" / "config.json", max_position_embeddings=CONTEXT)

    assert "expected MambaForCausalLM to keep keys and values of one size for each layer, got" in refused(
        tmp_path / "mamba"
    )


def test_an_architecture_that_fails_to_export_is_refused(
    tmp_path: Path, weights_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def export(*arguments: Any, **options: Any) -> None:
        raise ValueError("data-dependent\nand many more lines")

    monkeypatch.setattr(torch.onnx, "export", export)
    monkeypatch.setattr(foreign, "_LLAMAS", ())

    message = refused(weights_folder)

    assert "expected LlamaForCausalLM to be exported by torch" in message
    assert "got: ValueError: data-dependent; upgrade torch" in message


def test_an_export_that_computes_something_else_is_refused(
    weights_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def wrong(config: dict[str, Any], weights: dict[str, Any], half: bool) -> onnx.ModelProto:
        return llama_graph(config | {"rms_norm_eps": 0.5}, weights, half)

    monkeypatch.setattr(foreign, "llama_graph", wrong)

    assert "expected logits as the network makes, within" in refused(weights_folder)


def test_without_what_exports_it_says_what_to_install(weights_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "brigantine_training.language.foreign")
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(RuntimeMissing, match=r"transformers.*pip install 'brigantine\[hf\]'"):
        adopt_text(weights_folder, Choices())


def edit(folder: Path, how: Callable[[onnx.GraphProto], None]) -> None:
    proto = onnx.load(folder / "onnx" / "model.onnx")
    how(proto.graph)
    onnx.save(proto, folder / "onnx" / "model.onnx")


def without_caches(graph: onnx.GraphProto) -> None:
    kept = [value for value in graph.output if value.name == "logits"]
    del graph.output[:]
    graph.output.extend(kept)


def with_a_branch(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("use_cache_branch", onnx.TensorProto.BOOL, [1]))


def in_bfloat16(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16


def that_sees_padding(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.input[:] = ["ones" if name == "attention_mask" else name for name in node.input]
    shape = helper.make_node("Shape", ["attention_mask"], ["mask_shape"])
    one = numpy_helper.from_array(np.array([1], np.int64))
    graph.node.insert(0, helper.make_node("ConstantOfShape", ["mask_shape"], ["ones"], value=one))
    graph.node.insert(0, shape)


def that_keeps_another(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(100, np.float32), "hundred"))
    for node in graph.node:
        node.output[:] = ["kept" if name == "present.0.value" else name for name in node.output]
    graph.node.append(helper.make_node("Mul", ["kept", "hundred"], ["present.0.value"]))


def that_takes_one_row(graph: onnx.GraphProto) -> None:
    shape = numpy_helper.from_array(np.array([1, 3], np.int64), "one_row")
    graph.initializer.append(shape)
    for node in graph.node:
        node.input[:] = ["three" if name == "input_ids" else name for name in node.input]
    graph.node.insert(0, helper.make_node("Reshape", ["input_ids", "one_row"], ["three"]))


SPOILT = [
    (without_caches, "missing are present.0.key, present.0.value; export it with"),
    (with_a_branch, "got use_cache_branch too, and two graphs in one are not run; export one graph"),
    (in_bfloat16, "expected float32 or float16, got 'logits' type 16"),
    (that_keeps_another, "to have the logits of the whole text at once, got a difference of"),
    (that_takes_one_row, "expected a graph that reads any number of tokens behind any number of others, got"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "reason"), SPOILT, ids=lambda value: getattr(value, "__name__", ""))
def test_a_graph_that_cannot_be_served_is_refused(
    optimum_folder: Path, no_export: None, spoil: Callable[[onnx.GraphProto], None], reason: str
):
    edit(optimum_folder, spoil)

    with pytest.raises(ModelInvalid) as caught:
        adopt_text(optimum_folder, Choices())

    assert reason in str(caught.value)


def test_a_graph_that_sees_padding_is_given_none(optimum_folder: Path, no_export: None):
    edit(optimum_folder, that_sees_padding)

    adopted = adopt_text(optimum_folder, Choices())

    assert "differences of at most" in adopted.told  # from what it reads at once


def test_a_graph_of_another_kind_is_refused(optimum_folder: Path, no_export: None):
    tiny_graph(optimum_folder / "onnx" / "model.onnx")

    assert "got z, label too, and nobody knows their values" in refused(optimum_folder)


def test_weights_outside_of_the_folder_are_refused(genai_folder: Path, no_export: None):
    proto = onnx.load(genai_folder / "model.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../built/model.onnx.data" if entry.key == "location" else entry.value
    (genai_folder / "model.onnx").write_bytes(proto.SerializeToString())

    assert "expected a file in the folder of the graph, got '../built/model.onnx.data'" in refused(
        genai_folder
    )


def test_a_graph_outside_of_the_folder_is_refused(genai_folder: Path, no_export: None):
    change(
        genai_folder / "genai_config.json", model={"context_length": 9, "decoder": {"filename": "../x.onnx"}}
    )

    assert "model.decoder.filename: expected the name of a file in this folder, got '../x.onnx'" in refused(
        genai_folder
    )


def test_the_path_must_be_a_folder(tmp_path: Path):
    (tmp_path / "model.onnx").touch()

    assert "got a file; give the folder" in refused(tmp_path / "model.onnx")
    assert "got nothing of this name; give the folder" in refused(tmp_path / "nowhere")


def test_choices_for_pictures_are_refused(weights_folder: Path):
    with pytest.raises(ModelInvalid, match=r"expected --name and --description at most, got classes=3"):
        adopt_text(weights_folder, Choices(name="mine", classes=3))
