"""Latents: where they come from, and how they are moved before a generator sees them.

A latent is float32 [z_dim]; a generator with layers takes one for each, [layers, z_dim]. All functions are pure.
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

__all__ = ["decoded", "draw", "layered", "mixed", "of_seed", "slerp", "truncated"]

_NARROWEST = 1e-6
"""The sine of the angle under which an arc is as good as straight, or could go round either way."""


def draw(rng: np.random.Generator, z_dim: int) -> NDArray[np.float32]:
    """A latent [z_dim] from the standard normal distribution."""
    return rng.standard_normal(z_dim, dtype=np.float32)


def of_seed(seed: int, z_dim: int) -> NDArray[np.float32]:
    """The latent [z_dim] that a plain request with `seed` draws: the first numbers of the generator that the host
    makes for this seed.
    """
    return draw(np.random.Generator(np.random.Philox(seed)), z_dim)


def decoded(text: str, z_dim: int) -> NDArray[np.float32]:
    """The latent [z_dim] in `text`: base64 (RFC 4648, section 4) of little-endian float32 values.

    Raises:
        ValueError: it is something else. The message says what came, not what was expected.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # in words that depend on the version of Python
        raise ValueError("no base64") from None
    if len(data) != 4 * z_dim:
        raise ValueError(f"{len(data)} bytes")
    z = np.frombuffer(data, "<f4").astype(np.float32)  # [z_dim]
    if len(wrong := np.flatnonzero(~np.isfinite(z))):
        raise ValueError(f"{z[wrong[0]]} at index {wrong[0]}")
    return z


def truncated(z: NDArray[np.float32], truncation: float) -> NDArray[np.float32]:
    """The truncation trick: `z` [..., z_dim], drawn towards the mean latent.

    Karras et al. 2019 (arXiv:1812.04948, appendix B): w' = mean + truncation * (w - mean). There it is done to what a
    mapping network makes of the latent. Here it is the latent itself, whose mean is 0. 1 leaves every bit as it is.
    """
    return z * np.float32(truncation)


def slerp(start: NDArray[np.float32], end: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """The way [frames, z_dim] from `start` [z_dim] to `end` [z_dim], both included bit for bit, in even steps.

    Spherical interpolation (Shoemake 1985, "Animating rotation with quaternion curves"), since normal latents lie near
    a sphere, and the straight line through it leads where no generator was trained (White 2016, arXiv:1609.04468).
    Directions are on the great circle, and lengths go evenly from the one to the other: White's formula, with the
    lengths in it, overshoots between latents of unequal lengths at a wide angle. Where there is no shortest arc (a
    latent is 0, or they are opposite), the way is straight.

    Args:
        start: finite.
        end: finite.
        frames: at least 2.
    """
    t = np.linspace(0, 1, frames)[:, None]  # [frames, 1]
    path = _path(start.astype(np.float64), end.astype(np.float64), t).astype(np.float32)  # [frames, z_dim]
    path[0], path[-1] = start, end
    return path


def layered(z: NDArray[np.float32], layers: int) -> NDArray[np.float32]:
    """The same latent for every layer: of `z` [..., z_dim] a view [..., layers, z_dim]."""
    return np.broadcast_to(z[..., None, :], (*z.shape[:-1], layers, z.shape[-1]))


def mixed(z: NDArray[np.float32], other: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """Style mixing (Karras et al. 2019, section 3.1): `z` [..., layers, z_dim], from layer `first` on with `other`.

    Args:
        z: stays as it is.
        other: [z_dim]
        first: from 0, which leaves nothing of `z`, to layers - 1.
    """
    result = np.array(z)  # [..., layers, z_dim]
    result[..., first:, :] = other
    return result


def _path(
    start: NDArray[np.float64], end: NDArray[np.float64], t: NDArray[np.float64]
) -> NDArray[np.float64]:
    """From `start` [z_dim] at t = 0 to `end` [z_dim] at t = 1: [frames, z_dim] for `t` [frames, 1]."""
    from_length, to_length = _length(start), _length(end)
    if not from_length or not to_length:
        return (1 - t) * start + t * end
    p, q = start / from_length, end / to_length  # [z_dim]
    angle = 2 * np.arctan2(_length(p - q), _length(p + q))  # exact where the arc cosine is not: near 0 and pi
    if np.sin(angle) < _NARROWEST:
        return (1 - t) * start + t * end
    direction = (np.sin((1 - t) * angle) * p + np.sin(t * angle) * q) / np.sin(angle)  # [frames, z_dim]
    return ((1 - t) * from_length + t * to_length) * direction


def _length(z: NDArray[np.float64]) -> float:
    """Of `z` [z_dim], without BLAS, whose sums may depend on its threads."""
    return float(np.sqrt(np.sum(z * z)))
