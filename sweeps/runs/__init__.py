"""One run: identity, directory, lock, status, metrics, checkpoints, provenance, trackers, the session.

Imports neither pandas, Matplotlib, Hydra nor SciPy, so that a worker starts fast.
"""
