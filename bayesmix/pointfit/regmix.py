"""RegMix (Liu et al., arXiv 2407.01492): gradient-boosted trees of LightGBM."""

from typing import Any

import numpy as np
import xarray as xr

from bayesmix.model import observed_log_loss
from bayesmix.pointfit.curves import blank_parameters
from bayesmix.pointfit.linear import features
from bayesmix.pointfit.search import Fitted
from bayesmix.runs import Runs

# as released, but for the number of trees: that is settled inside the runs, not on held-out rows
_OPTIONS = {
    "objective": "regression",
    "metric": "l2",
    "learning_rate": 1e-2,
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "min_data_in_leaf": 5,
}
_MOST_TREES, _PATIENCE, _FOLDS = 1000, 20, 5


def fit(runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None) -> Fitted:
    """Fit every component's loss; the number of trees by five-fold cross-validation over runs.

    Raises
    ------
    ImportError
        Without LightGBM, the extra ``rivals``.
    """
    lightgbm = _lightgbm()
    parameters = blank_parameters(runs)
    sizes = runs.n_params.values, runs.n_tokens.values
    x = features(parameters, runs.effective_weights().values, *sizes)
    losses = np.exp(observed_log_loss(runs))
    ids, run = np.unique(runs.run_ids.values, return_inverse=True)
    fold_of_run = rng.permutation(ids.size) % _FOLDS
    options = _OPTIONS | {"seed": int(rng.integers(2**31))}
    trees: list[str] = []
    errors, n_leaves = [], 0
    for y in losses.T:
        seen = np.isfinite(y)
        data = lightgbm.Dataset(x[seen], y[seen], free_raw_data=False)
        fold = fold_of_run[run[seen]]
        folds = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]
        if not len(folds) > 1:
            trees.append("")
            continue
        scores = lightgbm.cv(
            options,
            data,
            _MOST_TREES,
            folds=folds,
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )
        n_trees = len(scores["valid l2-mean"])
        booster = lightgbm.train(options, lightgbm.Dataset(x[seen], y[seen]), n_trees)
        trees.append(booster.model_to_string())
        n_leaves += int(booster.trees_to_dataframe()["left_child"].isna().sum())
        errors.append((booster.predict(x[seen]) - y[seen]) ** 2)
    parameters["trees"] = ("component", np.array(trees, dtype=object))
    if not errors:
        return Fitted(parameters, 0, False, "fewer than two runs with losses", (), np.nan)
    loss = float(np.concatenate(errors).mean())
    return Fitted(parameters, n_leaves, True, "trees settled by cross-validation", (), loss)


def evaluate(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> np.ndarray:
    """Losses (R, C), nats per token."""
    lightgbm = _lightgbm()
    x = features(parameters, weights, n_params, n_tokens)
    return np.stack(
        [
            lightgbm.Booster(model_str=text).predict(x) if text else np.full(len(x), np.nan)
            for text in parameters["trees"].values
        ],
        axis=1,
    )


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise ImportError("the law regmix needs LightGBM: pip install 'bayesmix[rivals]'") from None
    return lightgbm
