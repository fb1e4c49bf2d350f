"""TreeNets: networks of separate pathways, the leaves, whose outputs are joined."""
