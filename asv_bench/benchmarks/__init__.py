"""Benchmarks of rmsprop_nb for airspeed velocity; ../README.md says how to run and read them."""

import os

# Set before NumPy is imported: OpenBLAS's threads wait by spinning, which would disturb timings of two worker threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks._package import compile_at_once

compile_at_once()
