"""Search a space instead of covering it: Optuna's samplers, and successive halving, over any launcher."""
