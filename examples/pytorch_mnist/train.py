"""A small convolutional network on MNIST, on the CPU. Kill it at any moment: the same command continues."""

import numpy as np
import torch
from torch import nn

import sweeps
from mlp.data import load


def mnist(images):
    """The first ``images`` of the training set, and the whole test set: (N, 1, 28, 28) in [0, 1], and labels."""
    data = load("mnist", {"holdout": 0, "holdout_seed": 0})
    for split, count in ((data.train, images), (data.test, len(data.test))):
        pixels = np.asarray(split.x[split.rows[:count]], np.float32) / 255
        yield torch.from_numpy(pixels).view(-1, 1, 28, 28), torch.from_numpy(np.array(split.y[:count]))


@sweeps.main(config_path=".", config_name="config", name="mnist", budget="epochs", metric="test_acc")
def train(cfg, run):
    torch.set_num_threads(1)  # sums are rounded in the order of the threads
    torch.manual_seed(cfg.seed)
    (x, y), (x_test, y_test) = mnist(cfg.images)
    model = nn.Sequential(
        nn.Conv2d(1, cfg.channels, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(cfg.channels * 12 * 12, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=cfg.momentum)

    for _ in run.epochs(cfg.epochs, state={"model": model, "optimizer": optimizer}, rng=["torch"]):
        model.train()
        for batch in torch.randperm(len(x)).split(cfg.batch):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            if not torch.isfinite(loss):
                raise sweeps.Diverged("the loss is not finite")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)  # several times an epoch: these are its steps
        model.eval()
        with torch.no_grad():
            hits = model(x_test).argmax(1) == y_test
        run.log(test_acc=100 * hits.double().mean())


if __name__ == "__main__":
    train()
