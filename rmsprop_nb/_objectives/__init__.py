"""Objectives: values and gradients from the user's functions."""
