"""Latency: two candidates at a time, ratios within pairs, and what may be claimed from them."""
