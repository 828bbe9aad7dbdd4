"""What everything else is made of: the rule, options, statuses, records, files. It needs no Numba."""
