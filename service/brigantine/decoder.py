"""The decoder: predicts the next token of many sequences at once, and remembers in a cache what it has read of each.

Sequences that are decoded together lie beside each other, so that a graph can append to the cache where it lies, as
GroupQueryAttention does; what a graph returns in a longer cache is copied back. On a GPU all slots run in each step,
the idle ones too: it takes as long, moves nothing, and is one CUDA graph. A prompt is read in chunks that begin
at multiples of `CHUNK`, whatever else runs, and only whole ones are reused: so the bits of a sequence depend on its own
tokens alone.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batch import IDS, LOGITS, POSITIONS, Batch, Lengths, Mask, Rows
from .errors import ModelInvalid
from .model import TensorSpec
from .session import Session
from .slots import Place, Slots
from .tensors import HostTensors, Shape
from .unmasking import MASK

__all__ = ["CHUNK", "Decoder"]

CHUNK = 32
"""Tokens of a prompt that are read at a time: about as much work as one step of a full batch."""
_ROUND = 64
"""A cache that grows is given padded to a multiple of so many tokens, which its own length alone decides: a sum over
more zeros may be rounded in another way."""

_IN_PLACE = 0
"""In place of such a multiple: the graph appends to the cache where it lies."""
_USUAL_ERRORS = {2: 0.03, 4: 1e-3, 8: 1e-3}
"""How far logits are off by rounding, as a share of the largest, by the bytes of a number in the cache."""
_MOST_ERROR = 0.2
"""What quantization may add to that, which rounds one token otherwise than several."""

_BATCHES = 256
"""Batches that are kept: to bind one anew takes as long as a quarter of a chunk."""
_DEVICE_BATCHES = 16
"""On a device, where each has logits of its own."""
_FEWEST = 4
"""Sequences for which there is room in the cache: a very long context is cut to that."""

log = logging.getLogger(__name__)

Logits = NDArray[np.float32]


class Decoder:
    """A causal language model's graph with its cache. Several threads may use it; it serves one at a time.

    The tensors are named as by onnxruntime-genai and optimum: `input_ids`, `attention_mask`, perhaps `position_ids`,
    `past_key_values.<layer>.key` and `.value`; `logits`, `present.<layer>.key` and `.value`.

    Args:
        session: runs the graph.
        context: the most tokens that the model reads.

    Raises:
        ModelInvalid: it is no such graph, does not go on where it was, or not even one sequence fits into the setting
            `cache_bytes`.
    """

    def __init__(self, session: Session, context: int) -> None:
        manifest = session.model.manifest
        inputs = {spec.name: spec for spec in manifest.inputs}
        self._session = session
        self._pasts = [name for name in inputs if name.startswith("past_key_values.")]
        self._presents = [name.replace("past_key_values", "present", 1) for name in self._pasts]
        self._check(inputs, {spec.name for spec in manifest.outputs})
        self._has_positions = POSITIONS in inputs
        self._whole = np.dtype(inputs[IDS].dtype)
        cache, dtypes = inputs[self._pasts[0]], session.dtypes
        heads, head_dim = int(cache.shape[1]), int(cache.shape[3])
        self._dtype = np.dtype(dtypes[self._pasts[0]])
        token_bytes = len(self._pasts) * heads * head_dim * self._dtype.itemsize
        tokens = session.options.cache_bytes // token_bytes
        self.context = min(context, max(tokens // _FEWEST, CHUNK))
        """The most tokens of a sequence here: fewer than the model may read, where the cache holds too few."""
        slots = min(manifest.max_batch, tokens // self.context)
        if slots < 1:
            raise ModelInvalid(
                f"{manifest.name}: {CHUNK} tokens take {token_bytes * CHUNK} bytes of cache, and "
                f"BRIGANTINE_CACHE_BYTES allows {session.options.cache_bytes}; allow more"
            )
        logits = next(spec for spec in manifest.outputs if spec.name == LOGITS)
        self.vocabulary = int(logits.shape[2])
        """How many tokens there are."""
        self._lock = threading.Lock()
        # One for all batches, of which one runs at a time: with a large vocabulary it is many megabytes.
        self._logits: NDArray[Any] = np.zeros(max(slots, CHUNK) * self.vocabulary, np.dtype(dtypes[LOGITS]))
        self._keep((len(self._pasts), slots, heads, self.context, head_dim))
        session.attach(self)

    @property
    def used(self) -> float:
        """The share of the cache that sequences fill, from 0 to 1, as it is told while another thread may use it."""
        return self._slots.used  # a metric, for which nobody waits until a step has run

    def forget(self) -> None:
        """Keep nothing of sequences that have ended."""
        with self._lock:
            self._slots.forget()

    def place(self, tokens: Sequence[int], reuse: bool = True) -> tuple[Place, int] | None:
        """A place for a sequence, and how many tokens of its prompt need not be read; None: all are taken.

        Args:
            tokens: its prompt, at least one token.
            reuse: whether to begin with what another sequence has read; the logits of that part are not to be had.
        """
        with self._lock:
            return self._slots.take(tokens, reuse)

    def read(self, place: Place, tokens: Sequence[int], start: int) -> Logits:
        """Read the next chunk of a prompt: logits [T, vocabulary], T = min(CHUNK, what is left).

        Args:
            place: the sequence's.
            tokens: the whole prompt.
            start: how much of it has been read, a multiple of CHUNK.
        """
        chunk = tokens[start : start + CHUNK]
        with self._lock:
            logits = self._run(self._slots.slot_of(place), chunk, start)
            self._slots.has_read(place, tokens[: start + len(chunk)])
        return logits

    def decode(self, places: Sequence[Place], tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One more token for each of N sequences: the logits [N, vocabulary] after it.

        Args:
            places: theirs.
            tokens: the token that each goes on with.
            lengths: how many come before it.

        Raises:
            ValueError: they are not as many of each.
        """
        return self.go_on(places, tokens, lengths, lambda _: None)

    def go_on(
        self,
        places: Sequence[Place],
        tokens: Sequence[int],
        lengths: Sequence[int],
        choose: Callable[[Logits], Sequence[int] | None],
    ) -> Logits:
        """As `decode`, for as long as `choose` finds another token for each sequence; the last logits.

        Args:
            places: theirs.
            tokens: the token that each goes on with first.
            lengths: how many come before it.
            choose: is given logits [N, vocabulary], which it must not keep, and gives tokens [N]; None ends it. The
                decoder serves nobody else meanwhile, `choose` neither.

        Raises:
            ValueError: they are not as many of each.
        """
        if len(places) != len(lengths):
            raise ValueError(f"expected a length for each of {len(places)} places, got {len(lengths)}")
        with self._lock:
            slots = self._slots.gather(places) if self._all is None else [*map(self._slots.slot_of, places)]
            step = self._stepping(slots)
            while True:
                if len(tokens) != len(slots):
                    raise ValueError(f"expected a token for each of {len(slots)} places, got {len(tokens)}")
                logits = step(tokens, lengths)
                self._slots.have_grown(slots, lengths)
                following = choose(logits)
                if following is None:  # the next run writes there
                    return np.array(logits) if np.may_share_memory(logits, self._logits) else logits
                tokens, lengths = following, [length + 1 for length in lengths]

    def read_at_once(self, tokens: Sequence[int]) -> Logits:
        """The logits [T, vocabulary] of a text of T tokens, for which the cache is not used."""
        _, _, heads, _, head_dim = self._slots.tensors.shape
        nothing: NDArray[Any] = np.zeros((1, heads, 0, head_dim), self._dtype)
        ids = np.asarray([tokens], self._whole)
        feeds = dict.fromkeys(self._pasts, nothing) | {IDS: ids, MASK: np.ones_like(ids)}
        if self._has_positions:
            feeds[POSITIONS] = np.arange(len(tokens), dtype=self._whole)[None]
        return self._session.run(feeds)[LOGITS][0].astype(np.float32)

    def _run(self, slot: int, tokens: Sequence[int], past: int) -> Logits:
        """T tokens more for one slot, behind as many as `past` says: logits [T, vocabulary], of its own."""
        if self._padding != _IN_PLACE:
            return self._run_grown(np.array([slot]), np.asarray([tokens], self._whole), np.array([past]))[0]
        if self._all is not None and len(tokens) == 1:
            return np.array(self._stepping([slot])(tokens, [past]))
        batch = self._batch(slot, 1, len(tokens))
        batch.write([tokens], [past])
        return batch.run()[0].astype(np.float32)

    def _stepping(self, slots: Sequence[int]) -> Callable[[Sequence[int], Sequence[int]], Logits]:
        """What makes a token more for each of N slots, none of which moves meanwhile.

        It is given tokens [N] and how many [N] come before each; it gives logits [N, vocabulary], until it is next run.
        """
        if self._padding != _IN_PLACE:
            return lambda tokens, past: self._run_grown(
                np.array(slots), np.asarray(tokens, self._whole)[:, None], np.array(past)
            )[:, 0]
        batch, rows = self._all_but(slots) if self._all is not None else self._beside(slots)

        def step(tokens: Sequence[int], past: Sequence[int]) -> Logits:
            batch.put(rows, tokens, past)
            return batch.run()[rows, 0].astype(np.float32, copy=False)

        return step

    def _beside(self, slots: Sequence[int]) -> tuple[Batch, Rows]:
        """The batch of slots that lie beside each other, and the row of each."""
        first = min(slots)
        rows = [slot - first for slot in slots]
        return self._batch(first, len(rows), 1), slice(None) if rows == sorted(rows) else rows

    def _all_but(self, slots: Sequence[int]) -> tuple[Batch, Rows]:
        """The batch of all slots, and the row of each of these: what the others make goes where nothing is kept."""
        assert self._all is not None
        filled = self._slots.filled
        idle = [slot for slot in range(len(filled)) if slot not in slots]
        self._all.put(idle, [0] * len(idle), [min(filled[slot], self.context - 1) for slot in idle])
        return self._all, list(slots)

    def _bound(self, first: int, rows: int, length: int, record: bool = False) -> Batch:
        """A batch of so many tokens for each of so many slots."""
        kept = [self._slots.tensors.view(layer, first, rows) for layer in range(len(self._pasts))]
        inputs = dict(zip(self._pasts, kept, strict=True))
        outputs = dict(zip(self._presents, kept, strict=True))
        ids = np.zeros((rows, length), self._whole)
        shape = rows, length, self.vocabulary
        logits: NDArray[Any] = np.reshape(self._logits[: math.prod(shape)], shape)
        told = (
            Lengths(rows, self.context)
            if self._session.is_unmasked
            else Mask(rows, self.context, self._whole)
        )
        return Batch(self._session, inputs, outputs, ids, logits, told, self._has_positions, record)

    def _run_grown(self, slots: NDArray[Any], ids: NDArray[Any], past: NDArray[Any]) -> Logits:
        """Rows whose pasts are padded to the same length run together."""
        padded = np.minimum(-(-past // self._padding) * self._padding, self.context)
        parts = [np.flatnonzero(padded == length) for length in np.unique(padded)]
        made = [self._run_padded(slots[rows], ids[rows], past[rows], int(padded[rows[0]])) for rows in parts]
        return np.concatenate(made)[np.argsort(np.concatenate(parts))]

    def _run_padded(self, slots: NDArray[Any], ids: NDArray[Any], past: NDArray[Any], padded: int) -> Logits:
        length = ids.shape[1]
        assert isinstance(self._slots.tensors, HostTensors), "only what is appended in place lies on a device"
        tensors = self._slots.tensors.array
        mask = np.ones((len(slots), padded + length), self._whole)
        mask[:, :padded] = np.arange(padded) < past[:, None]
        feeds: dict[str, NDArray[Any]] = {IDS: ids, MASK: mask}
        if self._has_positions:
            feeds[POSITIONS] = np.asarray(past[:, None] + np.arange(length), self._whole)
        for index, name in enumerate(self._pasts):
            feeds[name] = tensors[index, slots, :, :padded]
        made = self._session.run(feeds)
        for index, name in enumerate(self._presents):
            fresh = made[name][:, :, -length:]  # [N, heads, T, head_dim]
            for row, slot in enumerate(slots):
                tensors[index, slot, :, past[row] : past[row] + length] = fresh[row]
        return made[LOGITS].astype(np.float32, copy=False)

    def _keep(self, shape: Shape) -> None:
        """Make the cache as the graph wants it, which shows when it is tried: it appends in place, or makes another.

        What attends to as many tokens as the mask has ones, wherever these are, is given no padding.

        Raises:
            ModelInvalid: it goes on as it should in no way.
        """
        usual = _USUAL_ERRORS[self._dtype.itemsize]
        errors: dict[int, float] = {}
        refusals: list[Exception] = []
        for padding in (_IN_PLACE, _ROUND, 1):
            errors[padding] = self._tried(padding, shape, refusals)
            if errors[padding] <= usual:
                break
        least = min(errors.values())
        if len(refusals) == len(errors):
            raise refusals[-1]
        if least > _MOST_ERROR:
            raise ModelInvalid(
                f"{self._session.model.graph}: expected tokens that are read one by one to have the logits of the "
                f"whole text at once, got a difference of {least:.2g} of the largest; export it again with "
                "attention_mask and position_ids as inputs, or on a GPU set BRIGANTINE_GPU_FP16=false"
            )
        chosen = next(padding for padding, error in errors.items() if error <= max(usual, 2 * least))
        if chosen != self._padding:
            self._make(chosen, shape)
        self._slots.tensors.clear()

    def _tried(self, padding: int, shape: Shape, refusals: list[Exception]) -> float:
        """How far the logits are off with such a cache, as a share of the largest; infinite where it does not run."""
        try:
            self._make(padding, shape)
            error = self._error()
        except (
            Exception
        ) as reason:  # ONNX Runtime says in its own ways that the cache that comes out has another shape
            level = logging.DEBUG if self._session.device == "cpu" else logging.WARNING
            log.log(level, "%s: not with padding %d: %s", self._session.model.name, padding, reason)
            refusals.append(reason.with_traceback(None))  # which keeps what was tried
            return math.inf
        return math.inf if math.isnan(error) else error

    def _make(self, padding: int, shape: Shape) -> None:
        on_host = padding != _IN_PLACE or self._session.device == "cpu"
        tensors = (
            HostTensors(shape, self._dtype)
            if padding != _IN_PLACE
            else self._session.tensors(shape, self._dtype)
        )
        self._padding, self._slots, self._all = padding, Slots(tensors, CHUNK), None
        self._batch = lru_cache(_BATCHES if on_host else _DEVICE_BATCHES)(self._bound)
        if not isinstance(tensors, HostTensors):
            self._all = self._bound(0, shape[1], 1, record=True)

    def _error(self) -> float:
        """How far tokens that are read one by one are off the logits that they have when all are read at once."""
        tokens = [at % self.vocabulary for at in range(5)]
        expected = self.read_at_once(tokens)
        made = [self._run(0, tokens[:2], 0)]
        step = self._stepping([0])
        made += [np.array(step([tokens[at]], [at])) for at in range(2, len(tokens))]
        return float(np.abs(np.concatenate(made) - expected).max() / np.abs(expected).max())

    def _check(self, inputs: Mapping[str, TensorSpec], outputs: set[str]) -> None:
        missing = sorted(({IDS, MASK} - set(inputs)) | ({LOGITS, *self._presents} - outputs))
        if not self._pasts:
            missing.append("past_key_values.<layer>.key and .value")
        if missing:
            raise ModelInvalid(
                f"{self._session.model.graph}: expected the tensors of a language model with a cache, missing are "
                f"{', '.join(missing)}; export it with its cache, as `brigantine models import` does"
            )
