"""Random forests on scikit-learn's digits: a function without epochs, whose study is in study.yaml."""

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import sweeps


@sweeps.main(config_path=".", config_name="config", metric="accuracy")
def forest(cfg):
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.5, random_state=0)
    model = RandomForestClassifier(n_estimators=cfg.trees, max_features=cfg.features, random_state=cfg.seed)
    return {"accuracy": 100 * model.fit(x_train, y_train).score(x_test, y_test)}


if __name__ == "__main__":
    forest()
