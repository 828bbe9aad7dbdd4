"""Step control: each method as a pair of ask and tell."""
