"""ServedSampler: an exported model as the evaluation draws from it, through the session that serves it."""

from __future__ import annotations

import numpy as np
import torch
from brigantine.model import Model
from brigantine.session import Session, SessionOptions
from torch import Tensor

from ..errors import ScoringError

__all__ = ["ServedSampler"]


class ServedSampler:
    """Draws the images that the service would return: rounded to uint8 by the graph itself.

    Args:
        model: an image model: input `z` float32 [batch, z_dim], perhaps `label` int64 [batch], output `image`
            uint8 [batch, H, W, C].

    Raises:
        ScoringError: it is no image model.
    """

    def __init__(self, model: Model) -> None:
        inputs = {spec.name: spec for spec in model.manifest.inputs}
        z_dim = inputs["z"].shape[-1] if "z" in inputs else None
        if not isinstance(z_dim, int) or "image" not in {spec.name for spec in model.manifest.outputs}:
            raise ScoringError(
                f"{model.path}: expected an image model, with the input z [batch, z_dim] and the output image; "
                f"got {model.manifest.inputs} and {model.manifest.outputs}"
            )
        self._z_dim = z_dim
        self._labelled = "label" in inputs
        self._batch = model.manifest.max_batch
        # The CPU even beside a GPU: the same model must score the same figures everywhere.
        self._session = Session.open(model, SessionOptions(device="cpu"))

    def __call__(self, labels: Tensor, seed: int) -> Tensor:
        """Labels int64 [N] to images uint8 [N, C, H, W]."""
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((len(labels), self._z_dim), dtype=np.float32)  # [N, z_dim]
        batches: list[Tensor] = []
        for start in range(0, len(labels), self._batch):
            rows = slice(start, start + self._batch)
            arrays = {"z": z[rows]}
            if self._labelled:
                arrays["label"] = labels[rows].numpy()
            batches.append(torch.from_numpy(self._session.run(arrays)["image"]))  # [n, H, W, C]
        return torch.cat(batches).permute(0, 3, 1, 2).contiguous()
