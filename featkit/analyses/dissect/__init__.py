"""Which concepts the units of a network detect."""
