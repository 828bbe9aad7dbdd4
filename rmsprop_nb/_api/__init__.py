"""Front ends: what the user calls."""
