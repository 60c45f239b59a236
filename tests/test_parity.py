"""Training against PyTorch's autograd and torch.optim, in float64, on real MNIST: the same steps, the same numbers.

Nothing of ours is used on the other side: pixels are scaled, losses written and gradients taken by PyTorch. ``-s``
prints the largest differences; ``docs/trust.md`` has them.
"""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from mlp.activations import ACTIVATIONS
from mlp.composition import compose
from mlp.data import load
from mlp.losses import LOSSES
from mlp.optim import OPTIMIZERS
from mlp.trainer import Trainer
from mlp.training import parameters as parameters_of

HIDDEN, STEPS, BATCH, CLASSES = (32, 16), 300, 50, 10
LIMIT = 1e-10  # of max |ours − theirs| / max |theirs|, for each array
WD, MO, MARGIN, BETA2, EPS = 0.001, 0.9, 0.05, 0.999, 1e-8
LR = {"sgd": 0.02, "nesterov": 0.02, "adam": 0.001, "adamw": 0.001}


def torch_activations(torch):
    """By registry name: by override, the function."""
    gelu = torch.nn.functional.gelu
    return {
        "relu": {"": torch.relu},
        "sigmoid": {"": torch.sigmoid},
        "tanh": {"": torch.tanh},
        "gelu": {
            "activ.approximate=none": lambda z: gelu(z, approximate="none"),
            "activ.approximate=tanh": lambda z: gelu(z, approximate="tanh"),
        },
    }


def torch_losses(torch):
    """By registry name, the mean over the batch."""
    functional = torch.nn.functional
    return {
        "ce": functional.cross_entropy,
        "euclidean": lambda z, y: ((z - functional.one_hot(y, CLASSES)) ** 2).sum(dim=1).mean() / 2,
        # PyTorch's also divides by the number of classes
        "hinge": lambda z, y: CLASSES * functional.multi_margin_loss(z, y, p=1, margin=MARGIN),
    }


def torch_optimizers(torch):
    """By registry name: parameters → optimizer; weight decay on all of them, biases too."""
    optim = torch.optim
    adam = {"betas": (MO, BETA2), "eps": EPS, "weight_decay": WD}
    return {
        "sgd": lambda p: optim.SGD(p, LR["sgd"], momentum=MO, weight_decay=WD),
        "nesterov": lambda p: optim.SGD(p, LR["nesterov"], momentum=MO, weight_decay=WD, nesterov=True),
        "adam": lambda p: optim.Adam(p, LR["adam"], **adam),
        "adamw": lambda p: optim.AdamW(p, LR["adamw"], **adam),
    }


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch", reason="torch is in the extra bench")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):  # products this small only wait for one another's threads
        yield module
    module.set_num_threads(threads)


@pytest.fixture(scope="module")
def table():
    """Rows of what was measured, printed at the end."""
    rows = []
    yield rows
    print(f"\n{'largest relative difference of':56} parameters       loss")
    for name, parameters, loss in rows:
        print(f"{name:56} {parameters:10.1e} {loss:10.1e}")


def counterpart(table, kind, name):
    if name not in table:
        pytest.fail(f"{kind} {name} has no counterpart in PyTorch here: add it to torch_{kind} in {__file__}")
    return table[name]


@pytest.mark.heavy
@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activ", ACTIVATIONS)
def test_every_combination_trains_as_pytorch_does(torch, table, activ, loss, optim):
    measure = counterpart(torch_losses(torch), "losses", loss)
    optimizer_of = counterpart(torch_optimizers(torch), "optimizers", optim)
    for word, activation in counterpart(torch_activations(torch), "activations", activ).items():
        options = [word] if word else []
        options += [f"loss.margin={MARGIN}"] if loss == "hinge" else []
        options += [f"optim.beta2={BETA2}", f"optim.eps={EPS}"] if optim.startswith("adam") else []
        config = compose(
            f"activ={activ}", f"loss={loss}", f"optim={optim}", f"lr={LR[optim]}", f"wd={WD}", f"mo={MO}",
            f"model.hidden={list(HIDDEN)}", "model.init_std=0.1", f"bsz={BATCH}", "dtype=float64", *options,
        )  # fmt: skip
        parameters, losses = side_by_side(torch, config, activation, measure, optimizer_of)
        table.append((" ".join([activ, *word.split(".")[1:], loss, optim]), parameters, losses))
        assert parameters < LIMIT, word
        assert losses < LIMIT, word


def side_by_side(torch, config, activation, measure, optimizer_of):
    """Train both; the largest relative differences of a parameter array at the end, and of any step's loss."""
    dataset = load("mnist", dict(config.data.options))
    ours = Trainer(config, dataset)
    mine = list(parameters_of(ours.network).values())  # W1, b1, W2, …
    theirs = [torch.tensor(array, requires_grad=True) for array in mine]
    optimizer = optimizer_of(theirs)
    start = ours.network.theta.copy()
    worst = 0.0
    for index in np.random.default_rng(0).choice(len(dataset.train), (STEPS, BATCH), replace=False):
        our_loss, our_correct = ours.train(index)
        a = (torch.from_numpy(dataset.train.x[index]).double() - 128) / 255
        labels = torch.from_numpy(dataset.train.y[index]).long()
        for w, b in zip(theirs[:-2:2], theirs[1:-2:2], strict=True):
            a = activation(a @ w + b)
        logits = a @ theirs[-2] + theirs[-1]
        their_loss = measure(logits, labels)
        optimizer.zero_grad()
        their_loss.backward()
        optimizer.step()
        assert our_correct == int((logits.argmax(dim=1) == labels).sum())
        worst = max(worst, abs(our_loss / BATCH - their_loss.item()) / their_loss.item())
    assert np.abs(ours.network.theta - start).max() > 0.01  # they went somewhere
    return max(relative(a, b.detach().numpy()) for a, b in zip(mine, theirs, strict=True)), worst


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()
