"""Attention inside a user's own network: find it, prove its export form, swap it."""
