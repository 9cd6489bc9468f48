"""What a model believes before it sees losses: draws of parameters and losses from the priors."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from bayesmix.discrepancy import bend_draws
from bayesmix.model import build_model, kept_variables
from bayesmix.posterior import Fit
from bayesmix.predict import MEAN, predict
from bayesmix.priors import Prior
from bayesmix.reference import swarm_priors
from bayesmix.runs import Runs


def prior_fit(
    runs: Runs,
    law: str = "transfer",
    priors: Mapping[str, Prior] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Fit:
    """The prior, in the form of a fit: what predicts from a fit predicts from it.

    Of the losses only each domain's median enters, on which its level is centred. Offsets over
    scales hold bends, as predictions do, though what is sampled has none.

    Parameters
    ----------
    runs : Runs
        The swarm; every row enters, so choose checkpoints first.
    law : str
        ``transfer``, ``regression`` or ``quantization``.
    priors : mapping, optional
        Replacements for `bayesmix.priors.default_priors`, by name.
    draws : int
        Number of draws.
    seed : int
        The same seed gives the same draws.

    Returns
    -------
    Fit
        One chain of independent draws; its diagnostics mean nothing.

    Raises
    ------
    ValueError
        If the law or a prior's name is unknown, or `draws` is less than 1.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    model = build_model(runs, law, priors)
    names = kept_variables(model)
    # a few hundred draws cost less than compiling the graph well
    values = pm.draw(
        [model[name] for name in names], draws=draws, random_seed=seed, mode="FAST_COMPILE"
    )
    # pm.draw has no leading axis for a single draw
    drawn = {name: v if draws > 1 else v[None] for name, v in zip(names, values, strict=True)}
    # of which the model that is sampled has none, see `misfit.py`; by a stream of their own
    rng = np.random.default_rng([seed, *b"bends"])
    drawn["offset"] = drawn["offset"] + bend_draws(runs, drawn, rng)
    dims = {name: model.named_vars_to_dims.get(name) or () for name in names}
    variables = {name: (("chain", "draw", *dims[name]), v[None]) for name, v in drawn.items()}
    used = {dim for of_one in dims.values() for dim in of_one}
    coords = {dim: list(model.coords[dim]) for dim in used}
    tree = {
        "posterior": xr.Dataset(variables, coords),
        "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), np.zeros((1, draws), bool))}),
    }
    return Fit(xr.DataTree.from_dict(tree), runs, law, swarm_priors(runs, law, priors))


def prior_predictive(
    runs: Runs,
    law: str = "transfer",
    priors: Mapping[str, Prior] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Prior draws of the parameters, and of the losses of a swarm's runs.

    Parameters
    ----------
    runs, law, priors, draws, seed
        As in `prior_fit`.

    Returns
    -------
    Dataset
        Every parameter, named as in a posterior (dims ``chain``, ``draw``, ...), and
        ``expected`` and ``loss`` (dims ``draw``, ``row``, ``component``), nats per token: the
        law's loss, and that of a run with its noise.

    Raises
    ------
    ValueError
        If the law or a prior's name is unknown, or `draws` is less than 1.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> runs = load_dataset("simulated")
    >>> prior = prior_predictive(runs, draws=20)
    >>> bool((prior["expected"] > 0).all())
    True
    >>> prior["expected"].sizes["row"] == len(runs)
    True
    """
    drawn = prior_fit(runs, law, priors, draws, seed)
    losses = predict_prior(drawn, runs.frame, seed)
    return drawn.posterior["posterior"].to_dataset().merge(losses)


def predict_prior(drawn: Fit, table: pd.DataFrame, seed: int = 0) -> xr.Dataset:
    """Losses ``expected`` and ``loss`` of a `prior_fit`, by the law alone; draw, row, component."""
    # a prior draw's t may have next to no degrees of freedom: such noise overflows to infinity
    with np.errstate(over="ignore"):
        losses = predict(drawn, table, discrepancy=False, seed=seed).draws
    # a posterior's ``domain`` holds domains only
    return losses.drop_sel(domain=MEAN).rename(domain="component")
