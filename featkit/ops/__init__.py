"""Pure mathematics on arrays and tensors: no files, no printing."""
