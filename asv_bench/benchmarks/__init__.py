"""Benchmarks of rmsprop_nb for airspeed velocity; ../README.md says how to run and read them."""
