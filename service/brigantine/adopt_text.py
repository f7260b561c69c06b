"""Adopt a folder of Hugging Face's kind: a causal language model becomes one that the `text` plugin serves.

A folder with a graph, as onnxruntime-genai's builder and optimum write it, is taken as it is; the weights of any other
are exported first. What the plugin asks of the folder is looked for where these tools put it, and the graph is tried
before it is published.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from .adopted import STAGED, Adopted, settle
from .errors import ModelInvalid
from .exporters import exporter_of
from .foreign import Choices, Tensor, read_beside, walk
from .model import GRAPH, MANIFEST, Manifest, Model, sha256_of
from .text_trial import LONGEST_WINDOW, Network, tried

__all__ = ["adopt_text"]

_CONFIG, _GENERATION, _GENAI = "config.json", "generation_config.json", "genai_config.json"
_TOKENIZER = "tokenizer.json"
_COMPANIONS = (_TOKENIZER, "tokenizer_config.json", "chat_template.jinja")
_GRAPHS = (GRAPH, f"onnx/{GRAPH}", "decoder_model_merged.onnx", "onnx/decoder_model_merged.onnx")
_CONTEXT = "max_position_embeddings"  # as the plugin reads it
_CONTEXT_KEYS = (_CONTEXT, "n_positions", "n_ctx", "seq_length", "max_seq_len", "context_length")
_INPUTS = {"input_ids", "attention_mask", "position_ids"}
_MAX_BATCH = 16
_MARGIN = 64
"""Tokens of padding that a graph may count into its window."""


class _Settings(NamedTuple):
    """What the folder says of the model."""

    config: dict[str, Any]
    generation: dict[str, Any]
    genai: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> _Settings:
        """Of a model that is part of a larger one, what is said of the part counts as if it were alone."""
        config, generation, genai = (_json(folder / name) for name in (_CONFIG, _GENERATION, _GENAI))
        return cls({**_table(config, "text_config"), **config}, generation, _table(genai, "model"))

    @property
    def context(self) -> int | None:
        """The most tokens that it reads."""
        return _first_whole(self.config, *_CONTEXT_KEYS) or _first_whole(self.genai, "context_length")

    @property
    def window(self) -> int:
        """The most that a token sees of those before it; 0 for all."""
        size = _first_whole(self.config, "sliding_window")
        return size if size and self.config.get("use_sliding_window", True) else 0

    @property
    def cache(self) -> tuple[int | None, int | None]:
        """Heads of its keys and values, and the size of one, which onnxruntime-genai's graphs do not tell."""
        known = self.config | _table(self.genai, "decoder")
        heads = _first_whole(known, "num_attention_heads", "n_head")
        width = _first_whole(known, "hidden_size", "n_embd")
        size = _first_whole(known, "head_size", "head_dim") or (width // heads if width and heads else None)
        return _first_whole(known, "num_key_value_heads") or heads, size


class _Source(NamedTuple):
    """A folder with a graph, not yet a model."""

    graph: Path
    weights: list[str]
    """Files beside the graph."""
    proto: Any
    facts: Mapping[str, Any]
    network: Network | None
    """What the graph was made of here."""


def adopt_text(folder: Path, choices: Choices) -> Adopted:
    """Turn the language model in `folder` into a model, try it, and publish it.

    Raises:
        ModelInvalid: it is none, is unsafe, or cannot be exported or served.
        RuntimeMissing: what exports it is not installed.
    """
    _check(folder, choices)
    settings, name = _Settings.read(folder), folder.resolve().name
    context = _context(folder, settings)
    with TemporaryDirectory(prefix="brigantine-import-") as aside:
        staged = Path(aside) / "models" / STAGED
        staged.mkdir(parents=True)
        source = _source(folder, settings, staged)
        _check_inputs(source)
        context, doubts = _kept(context, settings, source)
        written = _stage(folder, settings, source, context, staged)
        facts: dict[str, Any] = {
            "name": STAGED,
            "plugin": "text",
            "description": choices.description or f"Imported from {name}.",
            "licence": _licence(folder),
            "files": {file: sha256_of(staged / file) for file in sorted(written)},
            "inputs": _specs(source, _inputs(source.proto.graph), settings.cache),
            "outputs": _specs(source, source.proto.graph.output, settings.cache),
            "max_batch": _MAX_BATCH,
            "training": {"imported_from": name, **source.facts},
        }
        _check_sizes(source.graph, Manifest.model_validate(facts))
        _check_ends(folder, settings, facts["outputs"])
        parity = tried(folder, _write(staged, facts), context, settings.window, source.network)
        model = _write(staged, facts | {"parity": parity})
        return settle(folder, model, choices.name, f"{name}: {_told(model, context, source)}", doubts)


def _check(folder: Path, choices: Choices) -> None:
    other = choices._replace(name="", description="")
    if given := [f"{option}={value!r}" for option, value in other._asdict().items() if value]:
        raise ModelInvalid(
            f"--plugin text: expected --name and --description at most, got {', '.join(given)}"
        )
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing of this name"
        raise ModelInvalid(
            f"{folder}: expected a folder with a language model, as Hugging Face has them, got {got}; give the folder"
        )
    if not (folder / _TOKENIZER).is_file():
        raise ModelInvalid(
            f"{folder / _TOKENIZER}: expected a tokenizer of the library tokenizers, got none; write one with "
            "transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )


def _source(folder: Path, settings: _Settings, exported: Path) -> _Source:
    """The graph of the folder, or the one that its weights are exported to."""
    stated = _table(settings.genai, "decoder").get("filename", GRAPH)
    if not isinstance(stated, str) or PurePath(stated).name != stated:
        raise ModelInvalid(
            f"{folder / _GENAI}: model.decoder.filename: expected the name of a file in this folder, got {stated!r}; "
            "copy it there"
        )
    named = settings.config.get("architectures") or [settings.genai.get("type", "unknown")]
    facts = {"architecture": str(named[0])}
    graph = next((folder / name for name in (stated, *_GRAPHS) if (folder / name).is_file()), None)
    if graph is not None:
        proto, weights = read_beside(graph)
        producer = f"{proto.producer_name} {proto.producer_version}".strip()
        return _Source(
            graph, weights, proto, facts | {"sha256": sha256_of(graph), "producer": producer}, None
        )
    if others := sorted(str(file.relative_to(folder)) for file in folder.rglob("*.onnx")):
        raise ModelInvalid(
            f"{folder}: expected a graph called {' or '.join(_GRAPHS[:2])}, got {', '.join(others)}; rename the one "
            "that takes and gives a cache, or remove them, to have the weights exported"
        )
    made = exporter_of("text")(folder, exported)
    proto, weights = read_beside(exported / GRAPH)
    return _Source(exported / GRAPH, weights, proto, facts | dict(made.facts), made.logits)


def _context(folder: Path, settings: _Settings) -> int:
    """The most tokens that the model reads.

    Raises:
        ModelInvalid: nothing says it, or it is too short.
    """
    context = settings.context
    if context is None or context < 3:
        raise ModelInvalid(
            f"{folder / _CONFIG}: expected how many tokens the model reads, as one of {', '.join(_CONTEXT_KEYS)}, or "
            f"in {_GENAI} as model.context_length, got {context or 'neither'}; add it"
        )
    return context


def _kept(context: int, settings: _Settings, source: _Source) -> tuple[int, list[str]]:
    """How much of the context can be served, and what is to be said of it."""
    if _appends_in_place(source.proto):
        return context, []
    why = f" (attention: {source.facts['attention']})" if "attention" in source.facts else ""
    slow = (
        f"its graph has no GroupQueryAttention, which appends to a cache in place{why}: each step copies the cache, "
        "through the host where there is a GPU. It serves, but long texts and many at once are slow; "
        "onnxruntime-genai's builder may know the model"
    )
    shorter = settings.window - _MARGIN
    tried_over_it = settings.window <= LONGEST_WINDOW
    if source.network or tried_over_it or shorter >= context:
        return context, [slow]
    doubt = (
        f"its attention sees {settings.window} tokens back, which such a graph miscounts in a batch, so that it is "
        f"served with a context of {shorter} instead of {context}; remove the graph, and its weights are exported "
        "without this limit"
    )
    return shorter, [slow, doubt]


def _appends_in_place(proto: Any) -> bool:
    """Whether its attention keeps the cache, and so knows how long each row is."""
    return any(
        part.op_type == "GroupQueryAttention" for part in walk(proto) if part.DESCRIPTOR.name == "NodeProto"
    )


def _stage(folder: Path, settings: _Settings, source: _Source, context: int, staged: Path) -> list[str]:
    """Write all that belongs to the model into `staged`, but for the manifest; gives the names of the files."""
    if source.graph.parent != staged:
        shutil.copyfile(source.graph, staged / GRAPH)
        for name in source.weights:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.graph.parent / name, staged / name)
    kept = [name for name in _COMPANIONS if (folder / name).is_file()]
    for name in [*kept, "README.md"]:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, staged / name)
    ends = {key: settings.genai.get(key) for key in ("bos_token_id", "eos_token_id")}
    stated = {key: value for key, value in ends.items() if value is not None}
    config = stated | settings.config | {_CONTEXT: context}
    tables = {_CONFIG: config} | ({_GENERATION: settings.generation} if settings.generation else {})
    for name, table in tables.items():
        (staged / name).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    return [GRAPH, *source.weights, *kept, *tables]


def _specs(
    source: _Source, infos: Iterable[Any], cache: tuple[int | None, int | None]
) -> list[dict[str, Any]]:
    """The tensors, with the sizes of the cache where the graph leaves them out."""
    tensors = [Tensor.of(info) for info in infos]
    for tensor in tensors:
        if tensor.dtype.startswith("type"):
            raise ModelInvalid(
                f"{source.graph}: expected float32 or float16, got {tensor}; export it in float32"
            )
    return [
        _filled(tensor, cache)._asdict() if _is_cache(tensor.name) else tensor._asdict() for tensor in tensors
    ]


def _is_cache(name: str) -> bool:
    return name.startswith(("past_key_values.", "present."))


def _filled(tensor: Tensor, cache: tuple[int | None, int | None]) -> Tensor:
    stated = None, cache[0], None, cache[1]
    sizes = (
        (known or size) if isinstance(size, str) else size
        for known, size in zip(stated, tensor.shape, strict=False)
    )
    return tensor._replace(shape=tuple(sizes))


def _inputs(graph: Any) -> list[Any]:
    constants = {tensor.name for tensor in graph.initializer}  # before IR version 4 these were inputs, too
    return [info for info in graph.input if info.name not in constants]


def _check_inputs(source: _Source) -> None:
    """That nothing is asked for that nobody knows. What is missing the decoder says."""
    names = [info.name for info in _inputs(source.proto.graph)]
    strange = [name for name in names if name not in _INPUTS and not name.startswith("past_key_values.")]
    if strange:
        why = (
            "two graphs in one are not run" if "use_cache_branch" in strange else "nobody knows their values"
        )
        raise ModelInvalid(
            f"{source.graph}: expected the inputs {', '.join(sorted(_INPUTS))} and past_key_values.<layer>.key and "
            f".value, got {', '.join(strange)} too, and {why}; export one graph that always takes a cache"
        )


def _check_sizes(graph: Path, manifest: Manifest) -> None:
    """That the sizes are stated which the cache is made by."""
    for spec in (*manifest.inputs, *manifest.outputs):
        axes = (1, 3) if _is_cache(spec.name) else (2,) if spec.name == "logits" else ()
        if axes and not all(len(spec.shape) > axis and isinstance(spec.shape[axis], int) for axis in axes):
            wanted = (
                "[batch, heads, length, head size]" if len(axes) == 2 else "[batch, sequence, vocabulary]"
            )
            raise ModelInvalid(
                f"{graph}: {spec.name}: expected {wanted} with fixed sizes, got {list(spec.shape)}; export it so"
            )


def _check_ends(folder: Path, settings: _Settings, outputs: Iterable[Mapping[str, Any]]) -> None:
    """That the tokens which a text begins and ends with are some that the graph knows."""
    size = next((spec["shape"][2] for spec in outputs if spec["name"] == "logits"), 0)
    for name, table in zip((_CONFIG, _GENERATION, _GENAI), settings, strict=True):
        for key in ("bos_token_id", "eos_token_id"):
            value = table.get(key)
            tokens = cast("list[Any]", value) if isinstance(value, list) else [] if value is None else [value]
            if size and not all(isinstance(token, int) and 0 <= token < size for token in tokens):
                raise ModelInvalid(
                    f"{folder / name}: {key}: expected tokens under {size}, got {value}; correct it"
                )


def _write(staged: Path, facts: Mapping[str, Any]) -> Model:
    (staged / MANIFEST).write_text(Manifest.model_validate(facts).model_dump_json(indent=2))
    return Model.open(staged)


def _told(model: Model, context: int, source: _Source) -> str:
    pasts = [spec for spec in model.manifest.inputs if spec.name.startswith("past_key_values.")]
    made = (
        "exported and compared with its network"
        if source.network
        else "its graph as it is, run whole and in steps"
    )
    return (
        f"{source.facts['architecture']}, {len(pasts) // 2} layers with a cache of {pasts[0].shape[1]} x "
        f"{pasts[0].shape[3]} {pasts[0].dtype}, a context of {context} tokens; {made}, differences of at most "
        f"{max(model.manifest.parity.values()):.2g}"
    )


def _licence(folder: Path) -> str:
    """What the front matter of its card says."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.S)
    said = re.search(r"^license:\s*[\"']?([^\"'\n]+?)[\"']?\s*$", front[1], re.M) if front else None
    return said[1] if said else ""


def _json(file: Path) -> dict[str, Any]:
    """A table in JSON; an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        table = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelInvalid(f"{file}: expected JSON, got {error}; copy the file again") from error
    if not isinstance(table, dict):
        raise ModelInvalid(
            f"{file}: expected an object in JSON, got {type(table).__name__}; copy the file again"
        )
    return cast("dict[str, Any]", table)


def _first_whole(table: Mapping[str, Any], *keys: str) -> int | None:
    return next((table[key] for key in keys if isinstance(table.get(key), int)), None)


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    inner = table.get(key)
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
