"""Support vector machines on scikit-learn's digits: a function without epochs, which returns its numbers."""

from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

import sweeps


def score(cfg):
    x, y = load_digits(return_X_y=True)
    scores = cross_val_score(SVC(C=cfg.C, gamma=cfg.gamma), x, y, cv=3)
    return {"accuracy": 100 * scores.mean(), "spread": 100 * scores.std()}


if __name__ == "__main__":
    found = sweeps.sweep(score, {"C": [1, 10], "gamma": [0.0001, 0.001, 0.01]}, metric="accuracy", name="svc")
    best = found.runs.sort_values("accuracy", ascending=False)
    print(best[["C", "gamma", "accuracy", "spread"]].to_string(index=False))
