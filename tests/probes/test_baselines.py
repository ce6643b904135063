"""What stands beside a probe's numbers: other subjects, made of the same images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from moe.data.readers import no_progress
from moe.lightning_module import MoEModule
from moe.routing import NONE
from probes import probing
from probes.activations import activations
from probes.baselines import (
    Baselines,
    embedding,
    initial_snapshot,
    one_expert_run,
    random_router,
    untrained_together,
    write_baselines,
)
from probes.features import pooled_shared, small_pictures
from probes.probe import Probe
from probes.registry import PROBES
from probes.snapshots import final_snapshot
from probes.statistics.similarity import second_order
from probes.subject import Subject
from probes.testing import example_subject
from sweeps.runs.store import RunStore
from sweeps.training.trial import train
from tests.conftest import tiny_config
from tests.probes.conftest import table
from tests.probes.suite.made import without_some_experts
from tests.probes.test_probing import open_store, silent


def test_the_embedding_is_the_weighted_sum_of_the_chosen_readouts(tmp_path):
    subject = example_subject(tmp_path, images=12)
    for found in (subject.activations, without_some_experts(subject).activations):
        for n, z_D in enumerate(embedding(found)):
            chosen = zip(found.indices_nK[n], found.weights_nK[n], strict=True)
            slow = sum((w * found.readouts_EnD[e, n] for e, w in chosen if e != NONE), np.zeros_like(z_D))
            np.testing.assert_allclose(z_D, slow, rtol=1e-5)


def test_a_random_router_has_the_same_gates_for_other_images(tmp_path):
    found = example_subject(tmp_path).activations
    random = random_router(found, 3)
    np.testing.assert_array_equal(random.readouts_EnD, found.readouts_EnD)
    np.testing.assert_array_equal(random.chosen_nE.sum(axis=0), found.chosen_nE.sum(axis=0))
    assert (random.logits_nE != found.logits_nE).any(axis=1).mean() > 0.9
    for n in range(20):  # logits, experts and weights of one and the same image
        (source,) = np.flatnonzero((found.logits_nE == random.logits_nE[n]).all(axis=1))
        np.testing.assert_array_equal(random.indices_nK[n], found.indices_nK[source])
        np.testing.assert_array_equal(random.weights_nK[n], found.weights_nK[source])


def test_a_table_and_a_figure_hold_them_side_by_side(tmp_path):
    own = {"mean": 0.8, "mean_low": 0.7, "mean_high": 0.9, "pairs": 3, "gate_r2": None}
    write_baselines(
        tmp_path, "x", own, {"pixels": {"mean": 0.6, "gate_r2": None}, "shared": {"mean": 0.75, "pairs": 3}}
    )
    rows = table(tmp_path / "baselines.csv")
    assert rows == [
        {"number": "mean", "run": "0.8", "pixels": "0.6", "shared": "0.75"},
        {"number": "pairs", "run": "3", "pixels": "", "shared": "3"},
    ]
    assert (tmp_path / "baselines.png").exists()


@pytest.mark.slow
class TestOfARun:
    @pytest.fixture(autouse=True)
    def there(self, two_runs, monkeypatch):
        monkeypatch.setenv("MOE_HOME", str(two_runs / "runs"))
        monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))
        self.run = RunStore().run(tiny_config(seed=0).identity())

    def baselines(self):
        snapshot, store = final_snapshot(self.run), open_store("tiny")
        subject = Subject(self.run, store, activations(snapshot, store, no_progress)[0])
        return Baselines(snapshot, subject), snapshot, store

    def test_the_untrained_model_has_the_weights_that_training_began_with(self):
        torch.rand(3)  # whatever ran before
        began = MoEModule(self.run.config, (0.5,) * 3, (0.2,) * 3).model.state_dict()
        initial = initial_snapshot(self.run)
        assert initial.epoch == 0
        for name, tensor in initial.model.state_dict().items():
            assert torch.equal(tensor, began[name]), name
        assert initial.digest != final_snapshot(self.run).digest

    def test_features_are_those_of_the_images(self):
        found, snapshot, store = self.baselines()
        shared = found.subject("shared").activations.readouts_EnD
        with torch.inference_mode():
            x = torch.from_numpy(np.array(store.images_NHWC[:4])).permute(0, 3, 1, 2).float() / 255
            mean, sd = (torch.tensor(values)[:, None, None] for values in (snapshot.card.mean, snapshot.card.sd))
            h = snapshot.model.shared((x - mean) / sd)
        np.testing.assert_allclose(shared[0, :4], h.mean(dim=(2, 3)).numpy(), rtol=1e-3, atol=1e-5)
        pixels = found.subject("pixels").activations.readouts_EnD
        assert pixels.shape == (1, len(store), 3 * 8 * 8)
        slow = ((x - mean) / sd).reshape(4, 3, 8, 2, 8, 2).mean(dim=(3, 5)).flatten(1)
        np.testing.assert_allclose(pixels[0, :4], slow.numpy(), rtol=1e-3, atol=1e-4)
        rows = np.array([7, 2, 119])
        np.testing.assert_allclose(small_pictures(snapshot, store, rows), pixels[0, rows], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(pooled_shared(snapshot, store, rows), shared[0, rows], rtol=1e-3, atol=1e-5)

    def test_every_headline_number_stands_beside_its_baselines(self):
        names = ["separability", "routing"]
        options = ["routing.map_images=0", "routing.permutations=5", "routing.bootstrap=10"]
        probing.probe_run(self.run.id, names, ["tiny"], silent, options, baselines=True)
        folder = self.run.probe("tiny", "separability")
        record = json.loads((folder / "result.json").read_text())
        for baseline in ("untrained", "shared", "embedding", "pixels"):
            assert 0 <= record[f"{baseline}/mean"] <= 1
        assert record["pixels/mean"] > 0.9  # the class is the brightness
        assert {"run", "shared", "embedding", "pixels", "untrained"} <= table(folder / "baselines.csv")[0].keys()
        assert (folder / "baselines.png").exists()
        assert not self.run.activations("tiny", 0).exists()
        routing = next((self.run.path / "probes" / "tiny").glob("routing*"))
        record = json.loads((routing / "result.json").read_text())
        assert record["random_router/load_cv2"] == pytest.approx(record["load_cv2"])
        assert "pixels/load_cv2" not in record

    def test_a_run_with_one_expert_is_found_by_its_recipe(self):
        assert one_expert_run(self.run) is None
        single = train(tiny_config(seed=0, model__experts=1, model__top_k=1), report=lambda *_: None)
        found = one_expert_run(self.run)
        assert found is not None
        assert found.id == single.id
        assert one_expert_run(single) is None
        assert one_expert_run(RunStore().run(tiny_config(seed=1).identity())) is None  # another seed
        probing.probe_run(self.run.id, ["separability"], ["tiny"], silent, baselines=True)
        beside = json.loads((self.run.probe("tiny", "separability") / "result.json").read_text())
        probing.probe_run(single.id, ["separability"], ["tiny"], silent)
        alone = json.loads((single.probe("tiny", "separability") / "result.json").read_text())
        assert beside["one_expert/mean"] == pytest.approx(alone["mean"])

    def test_runs_together_stand_beside_their_untrained_models(self):
        runs = [RunStore().run(tiny_config(seed=seed).identity()) for seed in (0, 1)]
        snapshots, store = [final_snapshot(run) for run in runs], open_store("tiny")
        beside = [
            Baselines(s, Subject(s.run, store, activations(s, store, no_progress)[0], snapshot=s)) for s in snapshots
        ]
        ((name, numbers),) = untrained_together(PROBES["similarity"](), beside).items()
        by_hand = [activations(initial_snapshot(run), store, no_progress)[0].readouts_EnD for run in runs]
        similarity_NN = second_order([readout_nD for readouts_EnD in by_hand for readout_nD in readouts_EnD])
        off = ~np.eye(len(similarity_NN), dtype=bool)
        assert name == "untrained"
        assert numbers["mean_similarity"] == pytest.approx(np.nanmean(similarity_NN[off]))

    def test_comparison_has_a_column_for_each(self):
        from sweeps.views.compare import run_numbers

        probing.probe_run(self.run.id, ["separability"], ["tiny"], silent, baselines=True)
        found = run_numbers(self.run)
        assert found["separability of pixels [tiny]"] > 0.9
        assert "separability [tiny]" in found

    @pytest.mark.parametrize("name", PROBES)
    def test_every_probe_bears_its_baselines(self, name, tmp_path):
        quick = {
            "routing": {"map_images": 0, "permutations": 5, "bootstrap": 5}, "exciting": {"permutations": 5},
            "coupling": {"bootstrap": 5}, "animacy": {"animate": ("class 0",), "bootstrap": 5},
            "tuning": {"permutations": 1}, "similarity": {"draws": 1, "pictures": 2},
            "geometry": {"permutations": 2, "distances": ("euclidean",)},
            "claims": {"permutations": 19, "halves": 2},
        }  # fmt: skip
        probe: Probe = PROBES[name](**quick.get(name, {}))
        found, *_ = self.baselines()
        numbers = found.numbers(probe)
        assert tuple(numbers) == tuple(one for one in probe.baselines if one != "one_expert")  # no such run here
        for which, of in numbers.items():
            assert any(value is not None for value in of.values()), which
            json.dumps(of, allow_nan=False)
        assert replace(found.subject("untrained"), epoch=None) == found.subject("untrained")
