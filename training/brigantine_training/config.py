"""What one training run does: a frozen, typed configuration, read from a preset and from `--set key=value`."""

import difflib
import os
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from .errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

C = TypeVar("C", bound="Config")

_PACKAGE = Path(__file__).resolve().parent
PRESET_FOLDERS = (_PACKAGE / "presets", _PACKAGE.parent / "presets")
"""Where presets lie by name: in the wheel, and in a checkout."""


class Config(BaseModel, frozen=True):
    """What every run is told, whatever it trains. A preset holds only what differs from the defaults of its kind."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    dataset: str
    """What to train on; read from `--data-dir`. It decides the kind of network. The one field without a default."""

    budget_seconds: float | None = Field(600.0, gt=0)
    """Wall-clock seconds of training; every schedule is a share of it."""
    budget_steps: int | None = Field(None, ge=1)
    """Steps of training. With both budgets the one that is further spent decides."""

    seed: int = Field(0, ge=0, lt=2**63)
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads; 0 takes all cores of this process up to four (small networks gain nothing from more)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA when there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` takes bfloat16 where the hardware multiplies it (avx512_bf16, AMX, CUDA from Ampere on)."""

    log_every_seconds: float = Field(10.0, gt=0)
    sample_every_seconds: float = Field(60.0, gt=0)
    checkpoint_every_seconds: float = Field(120.0, gt=0)

    def changed(self: C, **changes: Any) -> C:
        """This configuration with some fields changed, validated again."""
        return _validated(type(self), {**self.model_dump(), **changes}, "the changed configuration")


class GanConfig(Config, frozen=True):
    """A GAN that draws images by label. The defaults are the recipe of the preset `mnist`."""

    dataset: Literal["mnist"]

    generator: Literal["dcgan", "mlp"] = "dcgan"
    """Architecture of the generator: `networks/dcgan.py` or `networks/mlp.py`."""
    generator_width: int = Field(32, ge=1, le=1024)
    """Channels of the last hidden layer but one are twice this (dcgan); the narrowest hidden layer (mlp)."""
    discriminator: Literal["residual", "dcgan", "mlp"] = "residual"
    """Architecture of the discriminator: a file of `networks/`."""
    discriminator_width: int = Field(32, ge=1, le=1024)
    """Channels of its first layer (residual, dcgan); units of its last hidden layer (mlp)."""
    discriminator_dropout: float = Field(0.3, ge=0, lt=1)
    """Share of hidden units dropped in the mlp discriminator; the others have no dropout."""
    z_dim: int = Field(100, ge=1, le=4096)
    """Numbers in one noise vector."""
    label_dim: int = Field(10, ge=1, le=1024)
    """Numbers in the generator's embedding of a label."""

    loss: Literal["relativistic", "non-saturating"] = "relativistic"
    """Relativistic pairing with R1 and R2 (R3GAN), or the classic non-saturating cross-entropy."""
    gamma_start: float = Field(0.1, ge=0)
    """Weight of R1 + R2 at the start, in the relativistic loss. Under 0.05 that has been seen to collapse."""
    gamma_end: float = Field(0.05, ge=0)
    """Weight of R1 + R2 at the end of the budget (cosine)."""

    batch_images: int = Field(64, ge=2, le=65536)
    """Real images in one update; a step updates each network once, on a batch of its own."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's rate at the start, for both networks."""
    learning_rate_final: float = Field(0.1, gt=0, le=1)
    """What is left of the rate at the end of the budget, as a share of the start (cosine). Never zero."""
    adam_beta1: float = Field(0.5, ge=0, lt=1)
    adam_beta2_start: float = Field(0.9, ge=0, lt=1)
    adam_beta2_end: float = Field(0.99, ge=0, lt=1)
    """Adam's second-moment memory grows along a cosine: fast at first, steady at the end."""
    ema_decay: float = Field(0.9995, ge=0, lt=1)
    """Most memory of the averaged weights per step. Warm-up keeps it under (1+t)/(10+t): until step 18,000 the average
    spans about the last eighth of the run."""

    @model_validator(mode="after")
    def _agree(self) -> "GanConfig":
        if self.loss == "non-saturating" and (self.gamma_start or self.gamma_end):
            raise ValueError("the non-saturating loss has no penalty: set gamma_start and gamma_end to 0")
        return self


class LanguageConfig(Config, frozen=True):
    """A language model of Llama's shape. The defaults are the recipe of the preset `shakespeare`."""

    dataset: Literal["tinyshakespeare"]

    vocabulary: int = Field(1024, ge=272, le=65536, multiple_of=16)
    """Tokens: 256 bytes, the end of a text, and the pairs that are merged most often."""
    layers: int = Field(4, ge=1, le=128)
    heads: int = Field(4, ge=1, le=128)
    """Attention heads, each of `width / heads` numbers."""
    key_heads: int = Field(1, ge=1, le=128)
    """Heads of keys and values, each shared by `heads / key_heads` heads: what the cache holds."""
    width: int = Field(256, ge=16, le=8192)
    """Numbers that stand for one token between two layers."""
    inner_width: int = Field(832, ge=16, le=32768)
    """Numbers inside the feed-forward part of a layer."""
    context_tokens: int = Field(256, ge=8, le=8192)
    """Tokens of one window: what it is trained on is what it can be served with."""

    batch_windows: int = Field(16, ge=1, le=65536)
    """Windows of text in one step."""
    learning_rate: float = Field(3e-3, gt=0)
    """AdamW's rate after the warm-up, for the embedding and the norms."""
    matrix_learning_rate: float = Field(0.01, gt=0)
    """Muon's rate after the warm-up, for the matrices inside the layers."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Share of the budget in which the rates rise from zero; afterwards they fall to zero along a cosine."""
    weight_decay: float = Field(0.1, ge=0, lt=10)
    """Of the matrices, as a share of the rate."""
    dropout: float = Field(0.15, ge=0, lt=1)
    """Share of numbers dropped after the embedding and after each part of a layer."""
    merge_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of merges that are left out when the training text is encoded (BPE-dropout): the same words in other
    pieces in each epoch. It falls to zero along the budget."""
    ema_decay: float = Field(0.99, ge=0, lt=1)
    """Most memory of the averaged weights per step."""

    @model_validator(mode="after")
    def _agree(self) -> "LanguageConfig":
        if self.width % (2 * self.heads) or self.heads % self.key_heads:
            raise ValueError(
                f"width {self.width}, heads {self.heads}, key_heads {self.key_heads}: width must be a multiple of "
                "twice the heads, and heads one of key_heads"
            )
        return self


_KINDS: dict[str, type[Config]] = {"mnist": GanConfig, "tinyshakespeare": LanguageConfig}
"""By data set."""

RESUMABLE = frozenset({
    "budget_seconds", "budget_steps", "threads", "device",
    "log_every_seconds", "sample_every_seconds", "checkpoint_every_seconds",
})  # fmt: skip
"""Fields that a resumed run may change; any other would make it another experiment."""


def make_config(values: dict[str, Any], source: str) -> Config:
    """Validate `values`, of the kind that their data set asks for; `source` is named in the error.

    Raises:
        ConfigError: an unknown data set, an unknown key (with the nearest known one) or a value out of its bounds.
    """
    if "dataset" not in values:
        raise ConfigError(f"{source}: dataset: Field required. Known: {', '.join(_KINDS)}.")
    kind = _KINDS.get(str(values["dataset"]))
    if kind is None:
        raise ConfigError(
            f"{source}: dataset: expected one of {', '.join(_KINDS)}, got {values['dataset']!r}."
        )
    return _validated(kind, values, source)


def _validated(kind: type[C], values: dict[str, Any], source: str) -> C:
    known = sorted(kind.model_fields)
    for key in values:
        if key not in kind.model_fields:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{source}: unknown key {key!r}.{hint} Known keys: {', '.join(known)}.")
    try:
        config = kind(**values)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(map(_fault, error.errors()))) from None
    if config.budget_seconds is None and config.budget_steps is None:
        raise ConfigError(f"{source}: no budget. Set budget_seconds or budget_steps, so that training ends.")
    return config


def _fault(error: ErrorDetails) -> str:
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "missing" else f", got {error['input']!r}"
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}{got}"


def find_preset(preset: str) -> Path:
    """The file of a preset, which is a path ending in .toml or the name of one that is shipped.

    Raises:
        ConfigError: no such file; names the shipped presets.
    """
    if preset.endswith(".toml") or os.sep in preset:
        path = Path(preset)
        if path.is_file():
            return path
        raise ConfigError(f"preset {preset!r}: no such file.")
    shipped = {path.stem: path for folder in PRESET_FOLDERS for path in sorted(folder.glob("*.toml"))}
    if preset in shipped:
        return shipped[preset]
    raise ConfigError(
        f"preset {preset!r}: no such preset. Known: {', '.join(sorted(shipped))}; or give a path ending in .toml."
    )


def read_preset(preset: str) -> dict[str, Any]:
    """The differences from the defaults that a preset holds.

    Raises:
        ConfigError: no such preset, or it is not TOML.
    """
    path = find_preset(preset)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"preset {path}: not TOML: {error}") from None


def parse_setting(setting: str) -> tuple[str, Any]:
    """One `key=value` of the command line; the value is read as TOML, and as plain text where it is none.

    Raises:
        ConfigError: there is no `=` in it.
    """
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {setting!r}: expected key=value, for example --set batch_images=128.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return key.strip(), value
