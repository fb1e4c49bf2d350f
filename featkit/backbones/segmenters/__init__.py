"""Networks that say what pixels show."""
