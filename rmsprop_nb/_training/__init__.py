"""Steps of the optimizer for training loops: nested containers of arrays on the host."""
