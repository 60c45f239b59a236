"""Sweeps: plan a grid, submit its points to an executor, survive the death of workers."""
