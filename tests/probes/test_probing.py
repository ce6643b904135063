"""Probing real, tiny models: files, numbers, options, several runs, several sets of images, epochs."""

import json
import os

import numpy as np
import pytest
import yaml

from moe.data.datasets import open_store
from moe.data.readers import no_progress
from moe.data.store import Images, write_store
from moe.errors import UserError
from probes import probing
from probes.activations import activations
from probes.epochs import checkpoint_snapshots
from probes.failures import ProbesFailedError
from probes.registry import PROBES
from probes.snapshots import final_snapshot
from probes.statistics.tuning import fit_tuning
from probes.subject import Subject
from sweeps.launching import plan, register_planned
from sweeps.runs.files import read_json
from sweeps.runs.store import RunStore
from tests.conftest import TINY, tiny_config
from tests.probes.conftest import table

pytestmark = pytest.mark.slow

# tiny_store's classes are neither animate nor inanimate
QUICK = [
    "routing.map_images=30", "routing.permutations=5", "routing.bootstrap=10", "coupling.bootstrap=10",
    "animacy.animate=[class 0]", "animacy.bootstrap=10", "animacy.divisions=5",
    "tuning.permutations=2",
    "geometry.permutations=2", "geometry.distances=[euclidean]",
    "similarity.draws=2", "similarity.pictures=2", "similarity.permutations=19",
    "claims.permutations=19", "claims.halves=2",
]  # fmt: skip
LABELS = {
    "routing": "routing--map_images-30--permutations-5--bootstrap-10",
    "coupling": "coupling--bootstrap-10",
    "tuning": "tuning--permutations-2",
    "separability": "separability",
    "similarity": "similarity--pictures-2--permutations-19--draws-2",
    "claims": "claims--permutations-19--halves-2",
}


def silent(*_):
    return None


@pytest.fixture(autouse=True)
def there(two_runs, monkeypatch):
    monkeypatch.setenv("MOE_HOME", str(two_runs / "runs"))
    monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))


def run_of(seed):
    return RunStore().run(tiny_config(seed=seed).identity())


def subject(seed=0):
    store = open_store("tiny")
    return Subject(run_of(seed), store, activations(final_snapshot(run_of(seed)), store, no_progress)[0])


def quick_for(names):
    return [option for option in QUICK if option.split(".")[0] in names]


def test_every_probe_leaves_tables_figures_and_numbers_and_repeats_itself():
    lines = []
    first = probing.probe_run(run_of(0).id, None, None, lines.append, QUICK)
    assert set(first["images"]["tiny"]) == set(PROBES)
    folders = {folder.name.split("--")[0]: folder for folder in (run_of(0).path / "probes" / "tiny").iterdir()}
    assert set(folders) == set(PROBES)
    for name, label in LABELS.items():
        assert folders[name].name == label
    # 32 views a step for four experts, two each
    assert any("under 16 views in some training step" in line for line in lines)
    assert any("under 16 views" in note for note in read_json(folders["tuning"] / "result.json")["notes"])
    for name, folder in folders.items():
        assert {".csv", ".png", ".json"} <= {file.suffix for file in folder.iterdir()}, name
        record = json.loads((folder / "result.json").read_text())
        assert {key: record[key] for key in first["images"]["tiny"][name]} == first["images"]["tiny"][name]
        assert set(record["options"]) == set(PROBES[name].model_fields)
        assert record["model"] == final_snapshot(run_of(0)).digest
        assert record["image_sets"] == {"tiny": open_store("tiny").digest()}
    assert {probe.split("--")[0] for _, probe, _ in run_of(0).probe_results()} == set(PROBES)
    again = []
    assert probing.probe_run(run_of(0).id, None, None, again.append, QUICK) == first
    assert "activations reused" in again[0]


def test_the_tuning_table_holds_the_fit():
    probing.probe_run(run_of(0).id, ["tuning"], ["tiny"], silent, quick_for(["tuning"]))
    s = subject()
    Y_nt = np.concatenate([s.activations.logits_nE, s.activations.norms_nE], axis=1)
    fit = fit_tuning(s.store.factors_NF, Y_nt)
    folder = run_of(0).probe("tiny", LABELS["tuning"])
    rows = table(folder / "tuning.csv")
    assert [(row["target"], row["expert"]) for row in rows] == [
        (t, str(e)) for t in ("gate", "readout") for e in range(4)
    ]
    for target, row in enumerate(rows):
        assert float(row["r2_mean"]) == pytest.approx(fit.r2[target].mean(), rel=1e-4, abs=1e-5)
        assert float(row["r2_sd"]) == pytest.approx(fit.r2[target].std(), rel=1e-4, abs=1e-5)
        assert float(row["alpha"]) == pytest.approx(fit.alpha[target], rel=1e-4)
        assert row["alpha_at_edge"] == str(int(fit.at_edge[target]))
        top = fit.top(target, ("light", "chance"), 1)
        assert row["dimension_1"] == (top[0][0] if top else "")
        assert float(row["p"]) in (pytest.approx(1 / 3, rel=1e-4), pytest.approx(2 / 3, rel=1e-4), 1.0)
    printed = (folder / "tuning.tex").read_text().splitlines()
    assert len([line for line in printed if line.endswith(r"\\")]) == 9
    folds = table(folder / "folds.csv")
    assert [float(row["r2"]) for row in folds] == pytest.approx(fit.r2.ravel().tolist(), rel=1e-4, abs=1e-5)


def test_raw_and_standardised_results_lie_apart():
    options = ["tuning.permutations=0"]
    probing.probe_run(run_of(0).id, ["tuning"], ["tiny"], silent, options)
    probing.probe_run(run_of(0).id, ["tuning"], ["tiny"], silent, [*options, "tuning.standardize=false"])
    z, raw = (run_of(0).probe("tiny", f"tuning--{label}permutations-0") for label in ("", "standardize-false--"))
    assert read_json(z / "result.json")["options"]["standardize"] is True
    assert read_json(raw / "result.json")["options"]["standardize"] is False
    assert (z / "coefficients.csv").read_text() != (raw / "coefficients.csv").read_text()
    s = subject()
    fit = fit_tuning(s.store.factors_NF, s.activations.logits_nE, standardize=False)
    rows = table(raw / "coefficients.csv")[:4]
    assert [float(row["light"]) for row in rows] == pytest.approx(fit.coef[:, 0].tolist(), rel=1e-4, abs=1e-6)


def test_a_failed_probe_leaves_the_older_results_and_no_debris(monkeypatch):
    options = quick_for(["exciting"])
    probing.probe_run(run_of(0).id, ["exciting"], ["tiny"], silent, options)
    folder = run_of(0).probe("tiny", "exciting")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fails(self, subject, part, progress):
        (part / "half.csv").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(PROBES["exciting"], "run", fails)
    with pytest.raises(KeyboardInterrupt):
        probing.probe_run(run_of(0).id, ["exciting"], ["tiny"], silent, options)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert not list((run_of(0).path / "probes").glob(".*"))


def test_a_probe_that_fails_is_named_and_hinders_no_other(monkeypatch):
    def fails(self, subject, part, progress):
        raise ZeroDivisionError("no norm")

    monkeypatch.setattr(PROBES["exciting"], "run", fails)
    monkeypatch.setattr(PROBES["exciting"], "across_images", fails)
    lines = []
    rng = np.random.default_rng(1)
    write_store("noise", Images(rng.integers(0, 255, (20, 24, 24, 3), np.uint8), [f"n{i}" for i in range(20)], "drawn"))
    with pytest.raises(ProbesFailedError, match=r"3 probes failed, first exciting on tiny, run .*no norm") as raised:
        probing.probe_run(
            run_of(0).id,
            ["exciting", "coupling"],
            ["tiny", "noise"],
            lines.append,
            quick_for(["coupling"]),
            epochs=True,
        )
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert sum("failed: ZeroDivisionError: no norm" in line for line in lines) == 3
    for store in ("tiny", "noise"):
        assert (run_of(0).probe(store, LABELS["coupling"]) / "result.json").exists()
        assert (run_of(0).probe(store, LABELS["coupling"]) / "epochs.csv").exists()
    assert not list((run_of(0).path / "probes").glob(".*"))


def test_several_sets_of_images_side_by_side():
    rng = np.random.default_rng(1)
    write_store("noise", Images(rng.integers(0, 255, (20, 24, 24, 3), np.uint8), [f"n{i}" for i in range(20)], "drawn"))
    results = probing.probe_run(run_of(0).id, ["exciting"], ["tiny", "noise"], silent)
    assert set(results["images"]) == {"tiny", "noise", "tiny--noise"}
    folder = run_of(0).probe("tiny--noise", "exciting")
    assert {"exciting_gate.png", "exciting_readout.png"} <= {file.name for file in folder.iterdir()}
    joint = table(folder / "exciting.csv")
    for name in ("tiny", "noise"):
        alone = table(run_of(0).probe(name, "exciting") / "exciting.csv")
        assert [row for row in joint if row["images"] == name] == alone


def test_experts_of_all_runs_are_compared(tmp_path):
    probe = PROBES["similarity"](draws=2)
    result = probe.across_runs([subject(0), subject(1)], tmp_path, no_progress)
    assert [result.numbers[key] for key in ("experts", "dead_experts", "images")] == [8, 0, 120]
    members = table(tmp_path / "members.csv")
    assert [(row["run"], row["expert"]) for row in members] == [
        (run_of(seed).id, str(expert)) for seed in (0, 1) for expert in range(4)
    ]
    assert len({row["cluster"] for row in members}) == result.numbers["clusters"]


@pytest.fixture
def sweep(tmp_path):
    """A launched sweep of which two runs are finished and one is not."""
    spec = {
        "name": "probed",
        "method": "grid",
        "parameters": {key: {"value": value} for key, value in TINY.items()} | {"seed": {"values": [0, 1, 2]}},
    }
    path = tmp_path / "probed.yaml"
    path.write_text(yaml.safe_dump(spec))
    return register_planned(*plan(str(path), {}))


def test_a_sweep_is_probed_run_by_run_and_then_together(sweep):
    lines = []
    options = quick_for(["similarity", "claims"])
    results = probing.probe_sweep("probed", ["similarity", "claims", "exciting"], ["tiny"], lines.append, options)
    assert lines[0] == "1 of 3 runs are left out: not finished"
    assert [run["run_id"] for run in results["runs"]] == [run_of(seed).id for seed in (0, 1)]
    assert results["across_runs"].keys() == {
        "similarity",
        "claims",
    }  # the others have nothing to say about several runs
    assert results["across_runs"]["similarity"]["tiny"]["experts"] == 8
    claims = read_json(sweep.folder.probe("tiny", LABELS["claims"]) / "result.json")["claims"]
    assert any(claim["claim"] == "two_clusters" and "claimed: above 0" in claim["sentence"] for claim in claims)
    record = read_json(sweep.folder.probe("tiny", LABELS["similarity"]) / "result.json")
    assert record["models"] == {run_of(s).id: final_snapshot(run_of(s)).digest for s in (0, 1)}


def test_a_probe_that_fails_on_one_run_is_asked_of_the_others_and_of_all_together(sweep, monkeypatch):
    true_run = PROBES["similarity"].run

    def fails(self, subject, part, progress):
        if subject.run.id == run_of(0).id:
            raise ZeroDivisionError("no norm")
        return true_run(self, subject, part, progress)

    monkeypatch.setattr(PROBES["similarity"], "run", fails)
    options = quick_for(["similarity"])
    with pytest.raises(ProbesFailedError, match=f"1 probe failed, first similarity on tiny, run {run_of(0).id}"):
        probing.probe_sweep("probed", ["similarity"], ["tiny"], silent, options)
    assert (run_of(1).probe("tiny", LABELS["similarity"]) / "result.json").exists()
    assert (sweep.folder.probe("tiny", LABELS["similarity"]) / "result.json").exists()


def test_one_run_that_cannot_be_probed_does_not_stop_the_others(sweep):
    weights = run_of(1).model / "model.safetensors"
    aside = weights.rename(weights.with_name("aside"))
    lines = []
    try:
        with pytest.raises(
            UserError, match=rf"1 of 2 runs could not be probed: {run_of(1).id}: .*is missing or differs"
        ):
            probing.probe_sweep("probed", ["exciting"], ["tiny"], lines.append)
    finally:
        aside.rename(weights)
    assert any("exciting: images 120" in line for line in lines)


def test_numbers_over_training_come_from_the_checkpoints():
    run, store = run_of(0), open_store("tiny")
    snapshots = checkpoint_snapshots(run, silent)
    assert [snapshot.epoch for snapshot in snapshots] == [1, 2]
    last, final = (activations(s, store, no_progress)[0] for s in (snapshots[-1], final_snapshot(run)))
    np.testing.assert_array_equal(last.readouts_EnD, final.readouts_EnD)  # the exported model is the last epoch's
    probing.probe_run(run.id, ["coupling"], ["tiny"], silent, quick_for(["coupling"]), epochs=True)
    folder = run.probe("tiny", LABELS["coupling"])
    rows = table(folder / "epochs.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]  # the untrained model first
    assert float(rows[2]["mean_pearson"]) == pytest.approx(read_json(folder / "result.json")["mean_pearson"], rel=1e-4)
    assert len({row["mean_pearson"] for row in rows}) == 3
    assert (folder / "epochs.png").exists()


def test_mistakes_are_named():
    with pytest.raises(UserError, match='did you mean "tuning"'):
        probing.probe_run(run_of(0).id, ["tunning"], None, silent)
    waiting = RunStore().create(tiny_config(seed=7))
    with pytest.raises(UserError, match="not finished"):
        probing.probe_run(waiting.id, None, None, silent)


def test_a_probe_that_cannot_use_the_images_says_why():
    rng = np.random.default_rng(1)
    write_store("few", Images(rng.integers(0, 255, (20, 16, 16, 3), np.uint8), [f"n{i}" for i in range(20)], "drawn"))
    lines = []
    names = ["tuning", "animacy", "separability", "exciting"]
    results = probing.probe_run(run_of(0).id, names, ["few"], lines.append)
    said = "\n".join(lines)
    assert "tuning: left out, 0 images have rated dimensions, 50 are needed" in said
    assert "animacy: left out, it is not known which of these classes are animate" in said
    assert "separability: left out, these images have fewer than two classes" in said
    assert set(results["images"]["few"]) == {"exciting"}


def test_headline_numbers_in_one_line():
    numbers = {"images": 5000, "mean": 0.12345, "lone_low": 1, "mean_low": 0.1, "mean_high": 0.2, "nothing": None}
    assert probing.words(numbers) == "images 5,000, mean 0.123 [0.1, 0.2], lone_low 1"


@pytest.mark.parametrize("thing", ["a pipe", "a file"])
def test_what_lies_in_the_place_of_results_is_replaced(thing):
    run = run_of(0)
    for place in (run.probe("tiny", "separability"), run.activations("tiny")):
        place.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(place) if thing == "a pipe" else place.touch()
    found = probing.probe_run(run.id, ["separability"], ["tiny"], silent)
    assert (
        read_json(run.probe_result("tiny", "separability"))["mean"] == found["images"]["tiny"]["separability"]["mean"]
    )
