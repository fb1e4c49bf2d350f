"""Questions answered from a store, each a plugin of its own."""
