"""The commands of ``python -m rmsprop_nb``."""
