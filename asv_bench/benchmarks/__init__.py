"""Benchmarks of rmsprop_nb for airspeed velocity; ../README.md says how to run and read them."""

import os

# Before NumPy is imported: threads of OpenBLAS wait by spinning, on the core that two workers of ours are timed on.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
