"""Where the tests look for MNIST, and whether it is there."""

import os
from pathlib import Path

DATA_DIR = Path(os.environ.get("TEST_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
RAW = DATA_DIR / "MNIST" / "raw"
HAVE_MNIST = all(
    (RAW / f"{part}-{kind}-ubyte").is_file()
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
NO_MNIST = f"needs MNIST's four idx files in {RAW}; set TEST_DATA_DIR to the folder that holds MNIST/raw"
NO_PLAYS = f"needs tinyshakespeare.txt in {DATA_DIR}; set TEST_DATA_DIR to the folder that holds it"
