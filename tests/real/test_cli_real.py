"""The commands on swarms as published: fit, predict and recommend; and an import."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import bayesmix as bm
from bayesmix.cli import main


def test_slimpajama_from_table_to_recommendation(shared, tmp_path, capsys):
    swarm, fit = shared / "data" / "slimpajama7.csv", tmp_path / "fit.nc"
    few = ["--draws", "250", "--tune", "250", "--chains", "2"]
    code = main(
        ["fit", str(swarm), "--where", "n_params < 2e8", "--checkpoints", "last",
         "--out", str(fit), *few]
    )  # fmt: skip
    assert code in (0, 3)  # so few draws may miss the bounds on effective draws
    said = capsys.readouterr()
    assert said.err.startswith(f"warning: {swarm}: dropped 128 duplicate rows")
    assert ("the sampler's diagnostics failed" in said.err) == (code == 3)

    loaded = bm.load(fit)
    assert loaded.posterior["posterior"].sizes["draw"] == 250
    runs = loaded.runs
    assert set(runs.n_tokens.values) == {20e9}
    assert runs.n_runs == len(runs)

    # predicted where it was fitted: an interval and a mean beside every loss observed
    mixtures, predictions = tmp_path / "mixtures.csv", tmp_path / "predictions.csv"
    runs.frame.filter(regex="run_id|n_params|n_tokens|weight_").to_csv(mixtures, index=False)
    assert main(["predict", str(fit), str(mixtures), "--out", str(predictions)]) == 0
    table = pd.read_csv(predictions)
    table = table[table["domain"].isin(runs.domains)]
    observed = runs.losses.values.ravel()
    assert len(table) == observed.size
    error = abs(table["mean"] - observed) / observed
    assert error.mean() < 0.004
    inside = (table["lower"] <= observed) & (observed <= table["upper"])
    assert inside.mean() > 0.9

    out = tmp_path / "recommendation.json"
    scale = ["--n-params", "1.2e9", "--n-tokens", "2e10"]
    assert main(["recommend", str(fit), *scale, "--out", str(out)]) == 0
    weights = json.loads(out.read_text())["weights"]
    assert list(weights) == list(runs.domains)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-8)
    assert min(weights.values()) >= 0


def test_regmix_is_imported(shared, tmp_path, capsys):
    folder, out = shared / "upstream" / "regmix", tmp_path / "runs.csv"
    files = [folder / "test_mixture_1B.csv", folder / "test_pile_loss_1B.csv"]
    extra = shared / "upstream" / "explaining-data-mixing" / "eval.jsonl"
    scale = ["--n-params", "1130364928", "--n-tokens", "2.62144e10"]
    assert main(["import", "regmix", *map(str, [*files, extra]), *scale, "--out", str(out)]) == 0
    assert "did not sum to 1" in capsys.readouterr().err
    made, expected = bm.read_runs(out), bm.read_runs(shared / "data" / "pile17_1b.csv")
    assert made.domains == expected.domains
    np.testing.assert_allclose(made.losses, expected.losses, rtol=1e-12)
    assert set(made.n_tokens.values) == {26_214_400_000}


def test_the_wrong_files_are_refused(shared, tmp_path, capsys):
    # losses and mixtures the wrong way round
    folder, out = shared / "upstream" / "regmix", tmp_path / "runs.csv"
    files = [str(folder / f"test_{name}_1B.csv") for name in ("pile_loss", "mixture")]
    scale = ["--n-params", "1e9", "--n-tokens", "2.6e10"]
    assert main(["import", "regmix", *files, *scale, "--out", str(out)]) == 2
    assert "columns 'train_<domain>' are missing" in capsys.readouterr().err
    # an image in place of a swarm
    swarm = tmp_path / "swarm.csv"
    shutil.copy(shared / "data" / "pile17_1b.csv", swarm)
    swarm.write_bytes(b"\x89PNG\0" + swarm.read_bytes())
    assert main(["fit", str(swarm), "--out", str(tmp_path / "fit.nc")]) == 2
    assert f"error: {swarm}: a binary file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["swarm.csv"]
