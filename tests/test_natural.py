"""Draws in natural units, against PyMC's own functions of one point at a time."""

import numpy as np
import pytest

from bayesmix import load_dataset, natural, runs_from_frame
from bayesmix.model import build_model, kept_variables
from bayesmix.natural import in_natural_units


@pytest.fixture(
    scope="module", params=["several", "groups", "targets", "regression", "quantization"]
)
def model(request: pytest.FixtureRequest):
    runs = load_dataset("tinyswarm").select(range(12))
    if request.param == "groups":
        return build_model(runs, groups={"german": "words", "french": "words"})
    if request.param == "targets":
        frame = runs.frame.rename(columns={"loss_tables": "target_exam"}).query("n_params < 2e4")
        return build_model(runs_from_frame(frame))
    return build_model(runs, "transfer" if request.param == "several" else request.param)


@pytest.fixture(scope="module")
def unknowns(model):
    rng = np.random.default_rng(0)
    start = model.initial_point()
    return {
        name: value + rng.normal(size=(2, 3, *np.shape(value))) for name, value in start.items()
    }


def test_each_draw_is_what_the_model_has_at_its_point(model, unknowns):
    names = kept_variables(model)
    found = in_natural_units(model, unknowns)
    assert list(found.data_vars) == names
    outputs = model.replace_rvs_by_values([model[name] for name in names])
    of_point = model.compile_fn(
        outputs, inputs=model.value_vars, mode="FAST_COMPILE", on_unused_input="ignore"
    )
    for chain in range(2):
        for draw in range(3):
            at = of_point({name: values[chain, draw] for name, values in unknowns.items()})
            for name, value in zip(names, at, strict=True):
                got = found[name].values[chain, draw]
                np.testing.assert_allclose(got, value, rtol=1e-11, atol=1e-300, err_msg=name)


def test_axes_are_named_and_labelled(model, unknowns):
    found = in_natural_units(model, unknowns)
    assert found["E"].dims == ("chain", "draw", "component")
    assert found["E"]["component"].values.tolist() == list(model.coords["component"])
    assert set(found.coords) == {"chain", "draw", *(d for v in found.values() for d in v.dims)}


def test_draws_in_parts_are_the_same(model, unknowns, monkeypatch):
    whole = in_natural_units(model, unknowns)
    monkeypatch.setattr(natural, "_AT_ONCE", 4)
    assert in_natural_units(model, unknowns).equals(whole)
