"""The parts of deploy/check.py: one for each kind of file, and what the product has to set against them."""
