"""What `rmsprop_nb.plotting` draws, and the colours that it draws with. It needs matplotlib at the first call only."""
