"""One training run of a multi-layer perceptron in NumPy: configured, reproducible, continuable."""

from mlp.session import train

__all__ = ["train"]
