"""What one text may be asked for."""

from __future__ import annotations

from typing import Annotated

from brigantine import Params
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

__all__ = ["Message", "TextParams"]

_MOST_CHARACTERS = 262_144
_MOST_TOKENS = 131_072

Token = Annotated[StrictInt, Field(ge=0, le=10_000_000)]
Stop = Annotated[StrictStr, Field(min_length=1, max_length=256)]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: StrictStr = Field(min_length=1, max_length=64, description="Who speaks: system, user, assistant.")
    content: StrictStr = Field(max_length=_MOST_CHARACTERS, description="What they say.")


class TextParams(Params):
    """What one text may be asked for. It goes on from `prompt`, or from `messages`."""

    prompt: (
        Annotated[StrictStr, Field(max_length=_MOST_CHARACTERS)]
        | Annotated[list[Token], Field(max_length=_MOST_TOKENS)]
    ) = Field(default="", description="What comes before the text: words, or the numbers of tokens.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="A conversation instead of a prompt, written as the model's chat template says.",
    )
    max_tokens: Annotated[StrictInt, Field(ge=0, le=_MOST_TOKENS)] | None = Field(
        default=16, description="The most tokens to make. null: as many as fit into the context."
    )
    temperature: StrictFloat = Field(
        default=1.0,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description="Divides the logits: below 1 the likely become likelier. 0 takes the likeliest token each time.",
    )
    top_p: StrictFloat = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Draw from the likeliest tokens only, which together have this probability.",
    )
    top_k: StrictInt = Field(
        default=0, ge=0, le=1_000_000, description="Draw from so many likeliest tokens only. 0: from all."
    )
    min_p: StrictFloat = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Draw only what is at least so probable, as a share of the likeliest token's probability.",
    )
    repetition_penalty: StrictFloat = Field(
        default=1.0,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="Divides the positive logits of tokens that were there, prompt included, and multiplies others.",
    )
    presence_penalty: StrictFloat = Field(
        default=0.0,
        ge=-2,
        le=2,
        allow_inf_nan=False,
        description="Is taken from the logit of what was made before.",
    )
    frequency_penalty: StrictFloat = Field(
        default=0.0,
        ge=-2,
        le=2,
        allow_inf_nan=False,
        description="Is taken from it for each time that it was made.",
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] = Field(
        default_factory=list[Stop], description="Words before which the text ends."
    )
    logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = Field(
        default=None,
        description="Tell the log probability of each token, and of so many likeliest ones beside it.",
    )
    echo: StrictBool = Field(default=False, description="Begin the text with its prompt.")
