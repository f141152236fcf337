"""Attention systems as single operators of onnxruntime on a CPU: C sources, built for this processor when asked for."""
