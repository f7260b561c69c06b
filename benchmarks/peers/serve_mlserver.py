"""MLServer with parallel workers and adaptive batching; it speaks the Open Inference Protocol."""

from __future__ import annotations

from core import Painter
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Peer(MLModel):
    async def load(self) -> bool:
        self.painter = Painter()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        seeds = NumpyCodec.decode_input(payload.inputs[0]).ravel().tolist()
        output = StringCodec.encode_output("b64_json", self.painter.paint(seeds))
        return InferenceResponse(model_name=self.name, outputs=[output])
