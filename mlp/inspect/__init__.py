"""Inside a trained network: statistics of its layers, its weights, its loss landscape and its mistakes, as figures."""
