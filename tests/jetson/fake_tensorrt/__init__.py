"""Fake TensorRT modules, one for each version of the presence matrix: no GPU, no TensorRT, Python 3.6 and numpy alone.

`versions.module("8.2")` is the module; a child process gets it as `tensorrt`
with the folder `as_8_2` on its path. What a version lacks, its module lacks:
reading it raises AttributeError, and so does setting it.

An engine is `FAKE-TRT`, a line of JSON and the ONNX file. Its JSON tells what
the builder was asked, so that a test can read that from the file.

The environment variable FAKE_TENSORRT takes faults, separated by commas; the
constants of `builder` list them.
"""
