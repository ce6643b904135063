"""Probing real, tiny models: files, numbers, the cache, and the comparison of runs."""

import csv
import json
import os

import numpy as np
import pytest
import torch

from moe.data.augment import as_float, normalise
from moe.data.loading import resized
from moe.errors import UserError
from moe.export import load_model
from probes import jobs
from probes.activations import activations
from probes.cross_run import compare_experts
from probes.subject import Subject, rated_rows, representative_rows
from probes.tuning import fit_tuning
from sweeps.runs import RunStore
from sweeps.trial import train
from tests.conftest import tiny_config, tiny_store

pytestmark = pytest.mark.slow


def silent(*_):
    return None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished runs on a store large enough for every probe."""
    root = tmp_path_factory.mktemp("probed")
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("MOE_HOME", "runs"), ("MOE_DATA", "data")):
            patch.setenv(name, str(root / folder))
        patch.setenv("WANDB_MODE", "disabled")
        tiny_store(count=120)
        for seed in (0, 1):
            train(tiny_config(seed=seed), report=silent)
    return root


@pytest.fixture(autouse=True)
def there(trained, monkeypatch):
    monkeypatch.setenv("MOE_HOME", str(trained / "runs"))
    monkeypatch.setenv("MOE_DATA", str(trained / "data"))


def run_of(seed):
    return RunStore().run(tiny_config(seed=seed).identity())


def subject(seed=0):
    from moe.data.datasets import open_store

    store = open_store("tiny")
    return Subject(run_of(seed), store, activations(run_of(seed), store, silent)[0])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_activations_equal_the_forward_pass_expert_by_expert():
    s = subject()
    model, card = load_model(s.run.model)
    x = normalise(as_float(resized(s.store, 16)), card.mean, card.sd)
    with torch.no_grad():
        h = model.shared(x)
        np.testing.assert_allclose(s.activations.logits_nE, model.gate(h).logits, atol=1e-6)
        for number, expert in enumerate(model.experts):
            np.testing.assert_allclose(s.activations.readouts_EnD[number], expert(h), atol=1e-6)
            norms = [float(np.sqrt((row.astype(float) ** 2).sum())) for row in s.activations.readouts_EnD[number]]
            np.testing.assert_allclose(s.activations.norms_nE[:, number], norms, rtol=1e-5)
    assert s.activations.indices_nK.tolist() == model.route(x).indices.tolist()


def test_probing_twice_reuses_activations_and_ends_with_the_same_numbers():
    first = jobs.probe_run(run_of(0).id, None, None, silent)
    cache = run_of(0).activations("tiny")
    stamp = cache.stat().st_mtime_ns
    lines = []
    assert jobs.probe_run(run_of(0).id, None, None, lines.append) == first
    assert "activations reused" in lines[0]
    assert cache.stat().st_mtime_ns == stamp
    assert set(first["images"]["tiny"]) == set(jobs.PROBES)


def test_every_probe_leaves_tables_figures_and_numbers():
    jobs.probe_run(run_of(0).id, None, ["tiny"], silent)
    folder = run_of(0).path / "probes" / "tiny"
    for name in jobs.PROBES:
        files = {file.suffix for file in (folder / name).iterdir()}
        assert files == {".csv", ".png", ".json"}, name
        assert json.loads((folder / name / "result.json").read_text())
    assert {probe for _, probe, _ in run_of(0).probe_results()} == set(jobs.PROBES)


def test_the_tuning_table_holds_the_fit():
    jobs.probe_run(run_of(0).id, ["tuning"], ["tiny"], silent)
    s = subject()
    fit = fit_tuning(s.store.factors_NF, np.concatenate([s.activations.logits_nE, s.activations.norms_nE], axis=1))
    table = rows(run_of(0).probe("tiny", "tuning") / "tuning.csv")
    assert [(row["target"], row["expert"]) for row in table] == [
        (t, str(e)) for t in ("gate", "readout") for e in range(4)
    ]
    for target, row in enumerate(table):
        assert float(row["r2_mean"]) == pytest.approx(fit.r2[target].mean(), rel=1e-4, abs=1e-5)
        top = fit.top(target, ("light", "chance"), 1)
        assert row["dimension_1"] == (top[0][0] if top else "")


def test_a_changed_model_is_not_answered_from_the_cache(monkeypatch):
    s = subject()
    cache = s.run.activations("tiny")
    with np.load(cache) as stored:
        content = dict(stored)
    content["key"] = np.array("another model")
    content["logits_nE"] = content["logits_nE"] * 0
    np.savez(cache, **content)
    fresh, reused = activations(s.run, s.store, silent)
    assert not reused
    np.testing.assert_array_equal(fresh.logits_nE, s.activations.logits_nE)


def test_a_cut_off_cache_is_computed_again():
    s = subject()
    cache = s.run.activations("tiny")
    os.truncate(cache, 100)
    fresh, reused = activations(s.run, s.store, silent)
    assert not reused
    np.testing.assert_array_equal(fresh.readouts_EnD, s.activations.readouts_EnD)


def test_experts_of_all_runs_are_compared(tmp_path):
    numbers = compare_experts([subject(0), subject(1)], tmp_path)
    assert (numbers["experts"], numbers["dead_experts"], numbers["images"]) == (8, 0, 120)
    members = rows(tmp_path / "members.csv")
    assert [(row["run"], row["expert"]) for row in members] == [
        (run_of(seed).id, str(expert)) for seed in (0, 1) for expert in range(4)
    ]
    assert len({row["cluster"] for row in members}) == numbers["clusters"]
    assert {"similarity.png", "clusters.png", "cluster_images.png"} <= {file.name for file in tmp_path.iterdir()}


def test_a_dead_expert_is_counted_and_left_out(tmp_path):
    s = subject(0)
    s.activations.readouts_EnD[2] = 1.0
    numbers = compare_experts([s], tmp_path)
    assert (numbers["experts"], numbers["dead_experts"]) == (3, 1)
    assert [row["expert"] for row in rows(tmp_path / "members.csv")] == ["0", "1", "3"]


def test_activations_that_are_not_finite_are_named(monkeypatch):
    s = subject(1)
    s.run.activations("tiny").unlink()
    real = load_model

    def broken(folder):
        model, card = real(folder)
        with torch.no_grad():
            model.experts[2].readout[-1].bias[0] = float("nan")
        return model, card

    monkeypatch.setattr("probes.activations.load_model", broken)
    with pytest.raises(UserError, match=rf"run {s.run.id}, expert 2: .* 120 images of tiny, first tiny-000"):
        activations(s.run, s.store, silent)


def test_mistakes_are_named():
    with pytest.raises(UserError, match='did you mean "tuning"'):
        jobs.probe_run(run_of(0).id, ["tunning"], None, silent)
    waiting = RunStore().create(tiny_config(seed=7))
    with pytest.raises(UserError, match="not finished"):
        jobs.probe_run(waiting.id, None, None, silent)


def test_a_probe_that_cannot_use_the_images_says_why():
    tiny_store("plain", count=20)
    lines = []
    results = jobs.probe_run(run_of(0).id, ["tuning", "exciting"], ["plain"], lines.append)
    assert any("tuning: left out, 20 images have rated dimensions, 50 are needed" in line for line in lines)
    assert set(results["images"]["plain"]) == {"exciting"}


@pytest.mark.parametrize("name", jobs.PROBES)
class TestProbeContract:
    """Any probe in PROBES keeps these promises."""

    def test_it_describes_itself_and_repeats_itself(self, name, tmp_path):
        probe = jobs.PROBES[name]
        assert probe.about.startswith(name)
        s = subject()
        assert probe.skip(s.store) is None
        numbers = [probe.run(s, tmp_path / str(time)) for time in range(2)]
        assert numbers[0] == numbers[1]
        json.dumps(numbers[0], allow_nan=False)
        for table in (tmp_path / "0").glob("*.csv"):
            assert table.read_bytes() == (tmp_path / "1" / table.name).read_bytes()


def test_rated_and_representative_rows():
    store = subject().store
    assert rated_rows(store).tolist() == list(range(120))
    assert representative_rows(store).tolist() == list(range(120))
