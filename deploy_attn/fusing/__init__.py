"""`deploy-attn fuse`: a module as one operator of onnxruntime."""
