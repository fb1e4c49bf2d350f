"""How diverse are features: energy of samples, units and weights, against error."""
