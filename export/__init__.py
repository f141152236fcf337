"""PyTorch module -> artifact: trace, simplify under guard, precision plan, typed graph.

Each stage is one file with one verb and a frozen result; `deploy_attn/exporting.py`
has them in order. Import them from their files: several share their file's name.
"""

if __name__ == "export":
    raise ImportError("import deploy_attn.export, not export: this folder is the source of that subpackage")
