"""The catalogue of attention systems, one mechanism a file.

Each has a *reference form*, a trainable module with the source's semantics and
state_dict keys, and an *export form*, which computes the same for inference
with static shapes and without in-place writes. `catalogue` describes them
without importing torch.
"""
