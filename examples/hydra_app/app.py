"""Fit a polynomial to a noisy sine. An ordinary Hydra application: nothing here knows of any sweep runner."""

import logging

import hydra
import numpy as np
from omegaconf import DictConfig

log = logging.getLogger(__name__)


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> dict[str, float]:
    rng = np.random.default_rng(cfg.seed)
    x, x_test = rng.uniform(-3, 3, (2, cfg.points))
    y = np.sin(x) + cfg.noise * rng.normal(size=x.shape)
    fit = np.polynomial.Polynomial.fit(x, y, cfg.model.degree)
    rmse = float(np.sqrt(np.mean((fit(x_test) - np.sin(x_test)) ** 2)))
    log.info("degree %d: root mean square error %.4f", cfg.model.degree, rmse)
    return {"rmse": rmse}


if __name__ == "__main__":
    main()
