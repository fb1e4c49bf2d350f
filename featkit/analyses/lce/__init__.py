"""How models relate by the concepts that they have learned: the Learned Concepts Embedding."""
