"""Loops that run a method on an objective: one problem, a batch, mini-batches, many ranks."""
