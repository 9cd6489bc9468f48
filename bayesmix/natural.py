"""What a posterior keeps of a model, from draws of its unknowns in the sampler's coordinates."""

from collections.abc import Mapping

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from pytensor.compile.mode import Mode
from pytensor.graph.replace import vectorize_graph

from bayesmix.model import kept_variables

_AT_ONCE = 250  # draws: all pairs of 200 domains are 80 MB then, several times


def in_natural_units(model: pm.Model, unknowns: Mapping[str, np.ndarray]) -> xr.Dataset:
    """All that a posterior keeps, at draws of a model's unknowns.

    By NumPy, many draws at once: machine code for each variable would take as long to compile as
    a third of the log density.

    Parameters
    ----------
    model : pymc.Model
    unknowns : mapping
        Of each unconstrained variable, by its name there, values (chain, draw, ...).

    Returns
    -------
    xarray.Dataset
        Dims ``chain``, ``draw`` and the model's own, with its coords.

    Examples
    --------
    >>> with pm.Model(coords={"domain": ["web", "code"]}) as model:
    ...     scale = pm.HalfNormal("scale")
    ...     _ = pm.Deterministic("loss", pt.stack([scale, 2 * scale]), dims="domain")
    >>> draws = in_natural_units(model, {"scale_log__": np.log([[1.0, 3.0]])})
    >>> draws["loss"].sel(domain="code").values.round(3).tolist()
    [[2.0, 6.0]]
    """
    names = kept_variables(model)
    inputs = model.value_vars
    draws = [np.asarray(unknowns[variable.name]) for variable in inputs]
    n_chains, n_draws = draws[0].shape[:2]
    flat = [values.reshape(n_chains * n_draws, *values.shape[2:]) for values in draws]

    at = [pt.tensor(dtype=v.dtype, shape=(None, *v.type.shape)) for v in inputs]
    single = model.replace_rvs_by_values([model[name] for name in names])
    outputs = vectorize_graph(single, dict(zip(inputs, at, strict=True)))
    # PyTensor's own loop over nodes, which compiles nothing
    mode = Mode(linker="py", optimizer="fast_compile")
    function = pytensor.function(at, outputs, mode=mode, on_unused_input="ignore")
    total, found = n_chains * n_draws, dict[str, np.ndarray]()
    for start in range(0, total, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        for name, part in zip(names, function(*(values[some] for values in flat)), strict=True):
            if name not in found:  # whole: parts beside them would be as much memory again
                found[name] = np.empty((total, *part.shape[1:]))
            found[name][some] = part

    variables = {}
    for name, values in found.items():
        dims = ("chain", "draw", *model.named_vars_to_dims.get(name, ()))
        variables[name] = (dims, values.reshape(n_chains, n_draws, *values.shape[1:]))
    used = {dim for dims, _ in variables.values() for dim in dims}
    coords = {name: list(labels) for name, labels in model.coords.items() if name in used}
    counts = {"chain": np.arange(n_chains), "draw": np.arange(n_draws)}
    return xr.Dataset(variables, {**counts, **coords})
