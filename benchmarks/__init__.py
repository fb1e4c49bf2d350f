"""One script a claim, and the harness that they share."""
