"""Everything that runs on, or talks to, a CUDA device."""
