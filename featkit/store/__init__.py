"""Activations on disk: one folder a set of images, one HDF5 file a table."""
