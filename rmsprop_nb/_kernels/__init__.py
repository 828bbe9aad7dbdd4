"""Loops over arrays on the CPU."""
