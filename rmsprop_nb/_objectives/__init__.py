"""From the user's function to values and gradients."""
