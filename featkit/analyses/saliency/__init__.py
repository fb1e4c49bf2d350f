"""Which pixels the leaves of a TreeNet look at."""
