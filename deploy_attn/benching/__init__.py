"""`deploy-attn bench`: an artifact against what one would run instead, and against what its graph must move."""
