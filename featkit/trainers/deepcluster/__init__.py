"""DeepCluster: train a network by what k-means makes of its own features.

Source: Caron, Bojanowski, Joulin, Douze, Deep clustering for unsupervised learning of visual
features, 2018, arXiv:1807.05520.
"""
