"""Makes the model `chime` again: its graph and its manifest. Needs onnx: pip install --editable '.[dev]'.

The graph adds up eight partials of a bell, in the ratios to which church bells are tuned, from the hum to the double
octave; the higher ones fade faster. Every operator works on each element alone, or moves it: so a row's bits are the
same in any batch. Put your own graph here; `onnx.load` reads one that was exported.
"""

import hashlib
from pathlib import Path
from typing import Any

from brigantine import Manifest
from onnx import checker, helper, parser

FOLDER = Path(__file__).parent / "src" / "brigantine_chime" / "models" / "chime"

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
bell (float[batch, 1] pitch, float[batch, 1] decay, float[batch, 8] phase) => (float[batch, 16000] audio)
<
    float[1, 8, 1] ratio = {0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0},
    float[1, 8, 1] loudness = {0.10, 0.30, 0.15, 0.10, 0.12, 0.08, 0.06, 0.04},
    float[1, 8, 1] damping = {-6.9, -6.9, -8.28, -10.35, -13.8, -17.25, -20.7, -27.6},
    float begin = {0.0}, float end = {16000.0}, float one = {1.0}, float rate = {16000.0}, float turn = {6.2831855},
    int64[1] time_axis = {2}, int64[1] partial_axis = {1}
>
{
    sample = Range (begin, end, one)
    time = Div (sample, rate)

    pitches = Unsqueeze (pitch, time_axis)
    hertz = Mul (pitches, ratio)
    swings = Mul (hertz, time)
    phases = Unsqueeze (phase, time_axis)
    cycles = Add (swings, phases)
    whole = Floor (cycles)
    part = Sub (cycles, whole)
    angle = Mul (part, turn)
    wave = Sin (angle)

    decays = Unsqueeze (decay, time_axis)
    fall = Div (damping, decays)
    fallen = Mul (fall, time)
    envelope = Exp (fallen)

    bare = Mul (wave, envelope)
    partials = Mul (bare, loudness)
    a, b, c, d, e, f, g, h = Split <axis = 1> (partials)
    bell_sum = Sum (a, b, c, d, e, f, g, h)
    audio = Squeeze (bell_sum, partial_axis)
}
"""


def specs(values: Any) -> list[dict[str, Any]]:
    """What the manifest says of the graph's inputs or outputs."""
    tensors = [(value.name, value.type.tensor_type) for value in values]
    return [
        {
            "name": name,
            "dtype": helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
            "shape": [size.dim_param or size.dim_value for size in tensor.shape.dim],
        }
        for name, tensor in tensors
    ]


def main() -> None:
    model = parser.parse_model(GRAPH)
    checker.check_model(model, full_check=True)
    graph = model.SerializeToString(deterministic=True)
    manifest = Manifest.model_validate(
        {
            "format": 1,
            "name": "chime",
            "plugin": "chime",
            "description": "A struck bell of eight partials, one second at 16 kHz.",
            "files": {"model.onnx": hashlib.sha256(graph).hexdigest()},
            "inputs": specs(model.graph.input),
            "outputs": specs(model.graph.output),
            "max_batch": 16,
        }
    )
    (FOLDER / "model.onnx").write_bytes(graph)
    (FOLDER / "manifest.json").write_text(manifest.model_dump_json(indent=2, exclude_unset=True) + "\n")


if __name__ == "__main__":
    main()
