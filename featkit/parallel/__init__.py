"""Several processes at one task: who is among them, how they start, what they tell each other."""
