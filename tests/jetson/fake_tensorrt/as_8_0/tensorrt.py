"""With this folder on the path, `import tensorrt` gives the fake of TensorRT 8.0."""

import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if "fake_tensorrt" not in sys.modules:
    _SPEC = importlib.util.spec_from_file_location(
        "fake_tensorrt", os.path.join(_HERE, "__init__.py"), submodule_search_locations=[_HERE]
    )
    sys.modules["fake_tensorrt"] = importlib.util.module_from_spec(_SPEC)  # type: ignore[arg-type]
sys.modules[__name__] = importlib.import_module("fake_tensorrt.versions").module("8.0")
