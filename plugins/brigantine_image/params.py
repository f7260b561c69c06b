"""What one image may be asked for."""

from __future__ import annotations

from typing import Annotated

from brigantine import Params
from pydantic import Field, StrictFloat, StrictInt, StrictStr, field_validator

__all__ = ["CONTROLS", "DEFAULT_FRAMES", "ImageParams"]

DEFAULT_FRAMES = 16

_MAX_SEED = 2**53 - 1  # the host's own largest seed
_MAX_LABEL = 65_535
_MAX_Z = 349_528  # base64 of 65,536 float32 values


class ImageParams(Params):
    """What one image may be asked for."""

    label: (
        Annotated[StrictInt, Field(ge=0, le=_MAX_LABEL)] | Annotated[StrictStr, Field(max_length=80)] | None
    ) = Field(
        default=None,
        description="What to draw: a label's index or its name. Absent: named in the prompt, else drawn.",
    )
    prompt: StrictStr | None = Field(
        default=None,
        max_length=32_000,
        description="Words. One that names a label chooses it when `label` is absent.",
    )
    truncation: StrictFloat = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The latent is multiplied by it: below 1 pictures are more typical and less varied.",
    )
    z: StrictStr | None = Field(
        default=None,
        max_length=_MAX_Z,
        description="The latent itself: base64 of little-endian float32 values. Absent: drawn from the seed.",
    )
    to_seed: StrictInt | None = Field(
        default=None,
        ge=0,
        le=_MAX_SEED,
        description="Makes an animation, from this request's latent to the one that this seed draws.",
    )
    frames: StrictInt = Field(
        default=DEFAULT_FRAMES,
        ge=2,
        le=64,
        description="How many pictures an animation has, its two ends included. Only with `to_seed`.",
    )
    mix_seed: StrictInt | None = Field(
        default=None,
        ge=0,
        le=_MAX_SEED,
        description="Style mixing, where the model has layers: the later ones take the latent that this seed draws.",
    )
    mix_from: StrictInt | None = Field(
        default=None,
        ge=0,
        le=63,
        description="The first layer that `mix_seed` is for. Absent: half of them keep the request's latent.",
    )

    @field_validator("z", mode="before")
    @classmethod
    def _is_text(cls, z: object) -> object:
        """A list of numbers, say, is told what is wanted in its place."""
        if z is None or isinstance(z, str):
            return z
        raise ValueError("base64 of little-endian float32 values, in a string")


CONTROLS = frozenset({"truncation", "z", "to_seed", "frames", "mix_seed", "mix_from"})
"""The fields about the latent. A request with none of them takes it as it is drawn."""
