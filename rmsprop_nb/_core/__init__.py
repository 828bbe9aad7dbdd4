"""What everything else is made of: the rule, options, statuses, states, files. It needs no Numba."""
