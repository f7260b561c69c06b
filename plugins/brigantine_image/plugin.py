"""The image plugin: latent in, pixels out.

It serves every model whose graph has the input `z` float32 [batch, z_dim] or [batch, layers, z_dim], optionally `label`
int64 [batch], and the output `image` uint8 [batch, H, W, C].
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from brigantine import Arrays, BadParams, Done, FieldError, Media, Plugin, animation, image
from numpy.typing import NDArray

from . import latent
from .film import PATH, Film
from .params import CONTROLS, DEFAULT_FRAMES, ImageParams

__all__ = ["ImagePlugin"]

_ANIMATED = ("image/png", "image/webp", "image/gif")
_MOST_FILM_BYTES = 32 * 2**20
"""A film's pixels are kept until its last frame is drawn."""


class ImagePlugin(Plugin[ImageParams]):
    """Draws one image for each row, or an animation between two latents, of which each step draws one frame."""

    name = "image"
    content = "image"
    types = ("image/png", "image/webp", "image/jpeg", "image/gif")
    params = ImageParams

    def load(self) -> None:
        """Learn the model's latent size, its layers and its labels.

        Raises:
            ValueError: the model's tensors are not those of an image generator.
        """
        inputs = {spec.name: spec for spec in self.model.manifest.inputs}
        outputs = {spec.name: spec for spec in self.model.manifest.outputs}
        if "z" not in inputs or not set(inputs) <= {"z", "label"} or "image" not in outputs:
            raise ValueError(
                f"expected the inputs z and perhaps label, and the output image; got {list(inputs)} and {list(outputs)}"
            )
        if inputs["z"].dtype != "float32" or outputs["image"].dtype != "uint8":
            came = f"{inputs['z'].dtype} and {outputs['image'].dtype}"
            raise ValueError(f"expected z in float32 and image in uint8, got {came}")
        self.layers, self.z_dim = _latent_sizes(inputs["z"].shape)
        # An image whose size is not fixed is not bounded here.
        self.frame_bytes = math.prod(size for size in outputs["image"].shape[1:] if isinstance(size, int))
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
        z = latent.draw(rng, self.z_dim)  # [z_dim]
        row: dict[str, NDArray[Any]] = {"z": z if self.layers is None else latent.layered(z, self.layers)}
        if self.labels:
            drawn = int(rng.integers(len(self.labels)))
            row["label"] = np.asarray(self._label(params, drawn), dtype=np.int64)  # []
        else:
            self._refuse_label(params)
        # Most requests have none of these fields, and are spared a look at each.
        return row if CONTROLS.isdisjoint(params.model_fields_set) else row | self._controlled(params, z)

    def step(self, states: Sequence[Arrays | Film]) -> Sequence[Film | Done]:
        """Draw one picture of each row: all of a plain one, the next frame of an animation."""
        if not any(isinstance(state, Film) or PATH in state for state in states):  # most batches
            return super().step(states)
        films = [Film.of(state) for state in states]
        rows = [state if film is None else film.next_row() for state, film in zip(states, films, strict=True)]
        return [
            done if film is None else film.with_frame(done.row["image"])
            for film, done in zip(films, super().step(rows), strict=True)
        ]

    def render(self, row: Arrays, params: ImageParams, media_type: str) -> Media:
        """Encode the pixels, and say what was drawn and how large it is.

        Raises:
            BadParams: an animation in a type that has no frames.
        """
        pixels = row["image"]  # uint8 [H, W, C], of an animation [frames, H, W, C]
        height, width, _ = pixels.shape[-3:]
        info: dict[str, Any] = {"size": f"{width}x{height}"}
        if "label" in row:
            info["label"] = self.labels[int(row["label"])].name
        if params.to_seed is None:
            return image(pixels, media_type, **info)
        if media_type not in _ANIMATED:
            expected = f"an answer in {', '.join(_ANIMATED)}, which have frames, or a request without to_seed"
            raise BadParams([FieldError("to_seed", expected, f"one for {media_type}")])
        return animation(pixels, media_type, **info, frames=len(pixels))

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

    def _controlled(self, params: ImageParams, z: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The latent that the params ask for, and an animation's path; `z` [z_dim] is what the row has drawn."""
        if errors := [*_strays(params), *self._unmixable(params), *self._too_long(params)]:
            raise BadParams(errors)
        start = z if params.z is None else self._decoded(params.z)
        if params.to_seed is None:
            return {"z": self._shaped(start, params)}
        path = latent.slerp(
            start, latent.of_seed(params.to_seed, self.z_dim), params.frames
        )  # [frames, z_dim]
        shaped = self._shaped(path, params)
        return {"z": shaped[0], PATH: shaped}

    def _decoded(self, text: str) -> NDArray[np.float32]:
        try:
            return latent.decoded(text, self.z_dim)
        except ValueError as error:
            expected = f"base64 of {self.z_dim} finite little-endian float32 values, {4 * self.z_dim} bytes"
            raise BadParams([FieldError("z", expected, str(error))]) from None

    def _shaped(self, z: NDArray[np.float32], params: ImageParams) -> NDArray[np.float32]:
        """As the model takes it: `z` [..., z_dim] truncated, and with layers [..., layers, z_dim] mixed."""
        z = latent.truncated(z, params.truncation)
        if self.layers is None:
            return z
        z = latent.layered(z, self.layers)
        if params.mix_seed is None:
            return z
        other = latent.truncated(latent.of_seed(params.mix_seed, self.z_dim), params.truncation)  # [z_dim]
        return latent.mixed(z, other, self.layers // 2 if params.mix_from is None else params.mix_from)

    def _too_long(self, params: ImageParams) -> Iterator[FieldError]:
        most = max(2, _MOST_FILM_BYTES // self.frame_bytes)
        if params.to_seed is not None and params.frames > most:
            yield FieldError(
                "frames", f"at most {most} of pictures as large as this model's", repr(params.frames)
            )

    def _unmixable(self, params: ImageParams) -> Iterator[FieldError]:
        if params.mix_seed is None:
            return
        if self.layers is None:
            expected = f"no mix_seed: the latent of the model {self.model.name} has no layers"
            yield FieldError("mix_seed", expected, repr(params.mix_seed))
        elif params.mix_from is not None and params.mix_from >= self.layers:
            expected = f"a layer from 0 to {self.layers - 1}, which the model {self.model.name} has"
            yield FieldError("mix_from", expected, repr(params.mix_from))


def _latent_sizes(shape: tuple[int | str, ...]) -> tuple[int | None, int]:
    """The layers, None where there are none, and z_dim, from the shape of the input z."""
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if len(shape) not in (2, 3) or len(sizes) < len(shape) - 1:
        raise ValueError(
            f"expected z as [batch, z_dim] or [batch, layers, z_dim], all but the batch fixed, got {list(shape)}"
        )
    return sizes[0] if len(sizes) == 2 else None, sizes[-1]


def _strays(params: ImageParams) -> Iterator[FieldError]:
    """Fields that mean nothing without another one. A form that sends every default is let through."""
    if params.to_seed is None and params.frames != DEFAULT_FRAMES:
        yield FieldError("frames", "to_seed beside it, where the animation ends", f"{params.frames} alone")
    if params.mix_seed is None and params.mix_from is not None:
        yield FieldError(
            "mix_from", "mix_seed beside it, for the layers from there on", f"{params.mix_from} alone"
        )
