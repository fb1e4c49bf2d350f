"""One representation for several models, learned by gradient descent (Wallace et al. 2021)."""
