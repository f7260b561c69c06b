"""Train a generator, judge it, export it to ONNX. Needs the extra `train`."""
