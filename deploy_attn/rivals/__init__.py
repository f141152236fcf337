"""What a user would run instead of an artifact, one file each: made from the network that it was exported from."""
