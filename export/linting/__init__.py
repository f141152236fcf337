"""Lint: what a target's parser would refuse, misread or run badly, found without that parser.

`lint.py` runs it; `rules/` has one file a family of rules, `fixes/` one an
exact rewrite. Needs onnx, neither torch nor TensorRT.
"""
