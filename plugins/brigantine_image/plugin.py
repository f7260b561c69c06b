"""The image plugin: latent in, pixels out.

It serves every model whose graph has the input `z` float32 [batch, z_dim], optionally `label` int64
[batch], and the output `image` uint8 [batch, H, W, C].
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated

import numpy as np
from brigantine import Arrays, BadParams, FieldError, Media, Params, Plugin, image
from pydantic import Field, StrictInt, StrictStr

__all__ = ["ImageParams", "ImagePlugin"]


class ImageParams(Params):
    """What one image may be asked for."""

    label: StrictInt | Annotated[StrictStr, Field(max_length=80)] | None = Field(
        default=None,
        description="What to draw: a label's index or its name. Absent: named in the prompt, else drawn.",
    )
    prompt: StrictStr | None = Field(
        default=None,
        max_length=32_000,
        description="Words. One that names a label chooses it when `label` is absent.",
    )


class ImagePlugin(Plugin[ImageParams]):
    """Draws one image for each row."""

    name = "image"
    content = "image"
    types = ("image/png", "image/webp", "image/jpeg")
    params = ImageParams

    def load(self) -> None:
        """Learn the model's latent size and its labels.

        Raises:
            ValueError: the model's tensors are not those of an image generator.
        """
        inputs = {spec.name: spec for spec in self.model.manifest.inputs}
        outputs = {spec.name: spec for spec in self.model.manifest.outputs}
        if "z" not in inputs or not set(inputs) <= {"z", "label"} or "image" not in outputs:
            raise ValueError(
                f"expected the inputs z and perhaps label, and the output image; got {list(inputs)} and {list(outputs)}"
            )
        z_dim = inputs["z"].shape[-1]
        if not isinstance(z_dim, int):
            raise ValueError(f"expected a fixed latent size in the shape of z, got {inputs['z'].shape}")
        self.z_dim = z_dim
        self.labels = self.model.manifest.labels if "label" in inputs else ()
        if "label" in inputs and not self.labels:
            raise ValueError("expected labels in the manifest for the input label, got none")
        self.names = {
            name.casefold(): index
            for index, label in enumerate(self.labels)
            for name in (*label.aliases, label.name)
        }
        self.find_names = re.compile(rf"\b(?:{'|'.join(map(re.escape, self.names))})\b").findall
        self.named_in = lru_cache(maxsize=256)(self._named_in)  # once a request, not once a row

    def prepare(self, params: ImageParams, rng: np.random.Generator) -> Arrays:
        """Draw the latent, then the label: the same seed draws the same latent for every label."""
        z = rng.standard_normal(self.z_dim, dtype=np.float32)  # [z_dim]
        if not self.labels:
            self._refuse_label(params)
            return {"z": z}
        drawn = int(rng.integers(len(self.labels)))
        label = self._label(params, drawn)
        return {"z": z, "label": np.asarray(label, dtype=np.int64)}  # label: []

    def render(self, row: Arrays, params: ImageParams, media_type: str) -> Media:
        """Encode the pixels, and say what was drawn and how large it is."""
        pixels = row["image"]  # uint8 [H, W, C]
        height, width, _ = pixels.shape
        info: dict[str, str] = {"size": f"{width}x{height}"}
        if "label" in row:
            info["label"] = self.labels[int(row["label"])].name
        return image(pixels, media_type, **info)

    def _label(self, params: ImageParams, drawn: int) -> int:
        if params.label is None:
            named = self.named_in(params.prompt or "")
            return drawn if named is None else named
        asked = params.label
        index = asked if isinstance(asked, int) else self.names.get(asked.strip().casefold(), -1)
        if not 0 <= index < len(self.labels):
            names = ", ".join(label.name for label in self.labels)
            expected = f"an index from 0 to {len(self.labels) - 1} or one of {names}"
            raise BadParams([FieldError("label", expected, repr(params.label))])
        return index

    def _named_in(self, prompt: str) -> int | None:
        """The label that the prompt names; None when it names none, or more than one."""
        named = {self.names[name] for name in self.find_names(prompt.casefold())}
        return named.pop() if len(named) == 1 else None

    def _refuse_label(self, params: ImageParams) -> None:
        if params.label is not None:
            expected = f"no label: the model {self.model.name} has none"
            raise BadParams([FieldError("label", expected, repr(params.label))])
