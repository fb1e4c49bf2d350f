"""Checkpoint files of any kind, read without running code from them."""
