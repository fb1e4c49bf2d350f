"""Training networks of one's own: one loop, and one file a method."""
