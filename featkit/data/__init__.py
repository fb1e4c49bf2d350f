"""Image sources, decoding and preprocessing."""
