"""The estimator: scikit-learn's own checks, and a run's own weights."""

import subprocess
import sys

import numpy as np
import pytest

from mlp import data, load, train
from mlp.composition import compose
from sweeps.runs.errors import InputError

pytestmark = pytest.mark.heavy
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def classifier():
    from mlp.estimator import NetworkClassifier

    return NetworkClassifier


@pytest.mark.filterwarnings("default")  # some of the checks provoke warnings on purpose
def test_scikit_learn_s_checks(classifier):
    from sklearn.utils.estimator_checks import check_estimator

    results = check_estimator(classifier(), on_skip=None, on_fail="raise")
    assert sum(result["status"] == "passed" for result in results) > 50


def test_fit_comes_to_a_run_s_weights(classifier, tmp_path):
    """Real MNIST, the same seed: bit for bit."""
    result = train(compose("activ=gelu", "model.hidden=[64]", "epochs=2", "lr=0.1", "seed=3", f"out={tmp_path}"))
    mnist = data.load("mnist", {"holdout": 0, "holdout_seed": 0})
    estimator = classifier((64,), activ="gelu", epochs=2, lr=0.1, random_state=3).fit(mnist.train.x, mnist.train.y)
    model = load(result.path)
    assert {k: v.tobytes() for k, v in estimator.parameters_.items()} == {
        k: v.tobytes() for k, v in model.parameters.items()
    }
    assert estimator.loss_curve_ == [row.train_loss for row in result.history]
    assert 100 * estimator.score(mnist.test.x, mnist.test.y) == pytest.approx(result.last.test_acc)
    assert (estimator.predict_proba(mnist.test.x) == model.predict_proba(mnist.test.x)).all()
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_in_a_search_over_a_pipeline(classifier):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    names = np.array(list("abcdefghij"))[y]
    pipeline = make_pipeline(StandardScaler(), classifier((32,), epochs=10, bsz=50))
    search = GridSearchCV(pipeline, {"networkclassifier__lr": [0.1, 0.0001]}, cv=3).fit(x, names)
    assert search.best_params_ == {"networkclassifier__lr": 0.1}
    assert search.best_score_ > 0.9
    assert set(search.predict(x[:20])) <= set(names)


def test_parameters_are_checked_as_on_the_command_line(classifier):
    x, y = np.eye(4), [0, 1, 0, 1]
    for options, said in [
        ({"lr": -1}, "lr=-1: must be a number > 0"),
        ({"hidden": ()}, "model.hidden"),
        ({"words": ("seed=-1",)}, "seed"),
    ]:
        with pytest.raises(InputError, match=said):
            classifier(**options).fit(x, y)
    assert classifier(activ="gelu", epochs=1, words=("activ.approximate=none",)).fit(x, y).config_.activ.options == {
        "approximate": "none"
    }
    assert classifier(np.array([3, 2]), lr=np.float64(0.5), epochs=1).fit(x, y).config_.hidden == (3, 2)
    different = [classifier(epochs=1, random_state=None).fit(x, y).parameters_["W1"] for _ in range(2)]
    assert (different[0] != different[1]).any()


def test_without_scikit_learn_it_says_what_to_install():
    code = "import sys; sys.modules['sklearn.base'] = None; sys.modules['sklearn'] = None; import mlp.estimator"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("; pip install 'mlp-sweeps[sklearn]'")
