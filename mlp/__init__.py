"""One training run of a multi-layer perceptron in NumPy: configured, reproducible, continuable."""
