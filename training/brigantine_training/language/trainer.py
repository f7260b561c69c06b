"""A language model in training, and everything that one step changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from ..config import LanguageConfig
from ..ema import Ema
from ..errors import DivergedError
from ..family import Figures
from ..runtime import Runtime
from ..schedule import cosine
from .corpus import Corpus
from .evaluate.likelihood import token_nats
from .network import Llama
from .pieces import Pieces
from .tokenizer import end_of_text, train_tokenizer
from .windows import Windows

__all__ = ["LanguageTrainer"]

_LONGEST_GRADIENT = 1.0
"""Gradients are cut to this norm."""
_ADAM_BETAS = (0.9, 0.95)
_MOMENTUM = 0.95
_SAMPLE_TOKENS = 200


class LanguageTrainer:
    """Takes training steps. Knows no clock, no budget and no file; its state is all that a resumed run needs.

    The matrices of the layers are trained by Muon (Jordan 2024), the embedding and the norms by AdamW.
    """

    def __init__(self, config: LanguageConfig, corpus: Corpus, runtime: Runtime) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        self._runtime = runtime
        self.tokenizer = train_tokenizer(corpus.train_text, config.vocabulary)
        self._windows = _windows(config, corpus, self.tokenizer)
        self._test_characters = len(corpus.test_text)
        self._test_tokens = np.array(self.tokenizer.encode(corpus.test_text).ids)  # [tokens]
        self._end_of_text = end_of_text(self.tokenizer)
        self.network = Llama(config).to(runtime.device)
        self.ema = Ema(self.network, config.ema_decay)
        self._optimizers = _optimizers(self.network, config)
        self._loss_sum = torch.zeros((), device=runtime.device)
        self._summed_steps = 0
        self._scale = 0.0
        self._test_nats = math.nan
        self.steps = 0

    def step(self, progress: float) -> None:
        """One update of the network, then of the average. progress: 0..1 of the budget."""
        self._scale = scale_at(self._config.warmup, progress)
        for optimizer, rate in zip(self._optimizers, self._rates(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = self._windows.next(1 - progress).to(self._runtime.device)
        with self._runtime.autocast():
            logits = self.network(batch[:, :-1])  # [N, T, V]
        loss = functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.network.parameters(), _LONGEST_GRADIENT)
        for optimizer in self._optimizers:
            optimizer.step()
        self.ema.update(self.network)
        self._loss_sum += loss.detach()
        self._summed_steps += 1
        self.steps += 1

    @property
    def tokens_seen(self) -> int:
        """Tokens that were predicted in training."""
        return self.steps * self._config.batch_windows * self._config.context_tokens

    def take_figures(self, seconds: float) -> Figures:
        """Means since the last call, `seconds` ago. It waits for the device, so it is asked at intervals only.

        Raises:
            DivergedError: the loss is not finite.
        """
        loss = self._loss_sum.item() / max(self._summed_steps, 1)
        speed = self._summed_steps * self._config.batch_windows * self._config.context_tokens / seconds
        self._loss_sum.zero_()
        self._summed_steps = 0
        if not math.isfinite(loss):
            raise DivergedError(
                f"training diverged by step {self.steps}: expected a finite loss, got {loss}. Start a new run with "
                "half the learning_rate and matrix_learning_rate, or with --set precision=float32 if this one was "
                "bfloat16."
            )
        values = {"tokens_seen": self.tokens_seen, "loss": loss, "tokens_per_second": speed}
        values |= dict(zip(("matrix_learning_rate", "learning_rate"), self._rates(), strict=True))
        words = f"loss {loss:.3f} nats a token"
        if math.isfinite(self._test_nats):
            values["test_nats_per_character"] = self._test_nats
            words += f"  test {self._test_nats:.3f} a character"
        return Figures(values, f"{words}  {speed:,.0f} tokens/s")

    def check_finite(self) -> None:
        """Look at the averaged weights, which are what a checkpoint is kept for.

        Raises:
            DivergedError: one of them is not finite.
        """
        if not all(tensor.isfinite().all() for tensor in self.ema.generator.parameters()):
            raise DivergedError(
                f"training diverged in step {self.steps}: expected finite weights. The last checkpoint is kept; go on "
                "from it with half the learning_rate in a new run."
            )

    def draw_samples(self) -> str:
        """What the averaged network writes now, the same draw each time; it also measures it on the held-out text."""
        nats = token_nats(self._predict, self._test_tokens, self._end_of_text, self._config.context_tokens)
        self._test_nats = float(nats.sum()) / self._test_characters
        source = np.random.default_rng(0)
        ids = [self._end_of_text]
        for _ in range(min(_SAMPLE_TOKENS, self._config.context_tokens - 1)):
            logits = self._predict(np.array([ids]))[0, -1].astype(np.float64)  # [V]
            noise = source.gumbel(size=logits.shape)  # the largest sum is a draw from the softmax
            ids.append(int((logits + noise).argmax()))
        return self.tokenizer.decode(ids[1:])

    def counts(self) -> dict[str, int]:
        """What the record of the run counts."""
        return {
            "tokens_seen": self.tokens_seen,
            "parameters": sum(weight.numel() for weight in self.network.parameters()),
        }

    def shape(self) -> dict[str, Any]:
        """What a checkpoint says, beside the configuration, of the model that can be built from it."""
        return {"tokenizer": self.tokenizer.to_str()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come, bit for bit on a CPU with the same number of threads."""
        cuda = self._runtime.device.type == "cuda"
        return {
            "steps": self.steps,
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "windows": self._windows.state_dict(),
            "random_torch": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if cuda else None,
            "device": self._runtime.device.type,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken. On another kind of device dropout starts anew, all else goes on."""
        self.steps = state["steps"]
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._windows.load_state_dict(state["windows"])
        torch.set_rng_state(state["random_torch"])
        if state["device"] == self._runtime.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])

    def _rates(self) -> tuple[float, float]:
        """Of the matrices and of the other weights."""
        return self._config.matrix_learning_rate * self._scale, self._config.learning_rate * self._scale

    @torch.no_grad()
    def _predict(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The averaged network: ids [N, T] -> logits [N, T, V]."""
        with self._runtime.autocast():
            return self.ema.generator(torch.from_numpy(ids).to(self._runtime.device)).float().cpu().numpy()


def _windows(config: LanguageConfig, corpus: Corpus, tokenizer: Tokenizer) -> Windows:
    line = tokenizer.encode("\n").ids
    return Windows(
        Pieces(tokenizer, corpus.train_text, config.merge_dropout, config.seed),
        config.context_tokens,
        config.batch_windows,
        end_of_text=end_of_text(tokenizer),
        paragraph=line[0],
        seed=config.seed,
    )


def _optimizers(network: Llama, config: LanguageConfig) -> list[torch.optim.Optimizer]:
    """Of the matrices, and of all other weights."""
    matrices = network.matrices()
    known = {id(weight) for weight in matrices}
    others: list[Tensor] = [weight for weight in network.parameters() if id(weight) not in known]
    return [
        # Its updates are scaled to the size of AdamW's, so that one kind of rate suits both.
        torch.optim.Muon(
            matrices,
            config.matrix_learning_rate,
            config.weight_decay,
            momentum=_MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, config.learning_rate, _ADAM_BETAS, weight_decay=0.0, fused=True),
    ]


def scale_at(warmup: float, progress: float) -> float:
    """The share of a rate at `progress`: a straight rise, then a cosine to zero."""
    if progress < warmup:
        return progress / warmup
    return cosine(1.0, 0.0, (progress - warmup) / (1 - warmup))
