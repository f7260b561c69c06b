"""The plugin `chime`: a struck bell, whose eight partials begin where the seed says."""

import numpy as np
from brigantine import Arrays, Media, Params, Plugin, wav
from pydantic import Field

RATE = 16_000  # samples a second, as the graph makes them


class ChimeParams(Params):
    """What one chime may be asked for."""

    pitch: float = Field(default=440.0, ge=110, le=1760, description="The note that is heard, in Hz.")
    decay: float = Field(default=0.8, ge=0.1, le=1.0, description="Seconds until it is a thousandth as loud.")


class ChimePlugin(Plugin[ChimeParams]):
    """Strikes a bell once for each row."""

    name = "chime"
    content = "chime"
    types = ("audio/wav",)
    params = ChimeParams

    def prepare(self, params: ChimeParams, rng: np.random.Generator) -> Arrays:
        asked = {"pitch": np.array([params.pitch], np.float32), "decay": np.array([params.decay], np.float32)}
        return asked | {"phase": rng.random(8, np.float32)}

    def render(self, row: Arrays, params: ChimeParams, media_type: str) -> Media:
        return wav(row["audio"], RATE, pitch=params.pitch)
