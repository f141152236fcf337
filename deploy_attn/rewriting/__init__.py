"""Attention inside a user's own network: found, proven, replaced. `rewrite` holds the steps, `families` the readers."""
