"""Activations of a real, tiny model: equal to the plain forward pass, resumed, cached, refused when not finite."""

import json

import numpy as np
import pytest
import torch

from moe.data import preparation
from moe.data.augment import as_float, normalise
from moe.data.datasets import open_store
from moe.data.loading import resized
from moe.data.readers import no_progress
from moe.data.store import Images, write_store
from moe.errors import UserError
from probes import activations as module
from probes.activations import activations
from probes.snapshots import final_snapshot, of_run
from sweeps.runs.store import RunStore
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture
def snapshot(two_runs, tmp_path, monkeypatch):
    """A trained model in a run of its own, with the store it was trained on."""
    monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))
    run = RunStore().run(tiny_config(seed=0).identity())
    run.path.parent.mkdir(parents=True)
    trained = RunStore(two_runs / "runs").run(run.id)
    run.path.mkdir()
    run.model.symlink_to(trained.model)
    return final_snapshot(run)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 32)


class StopError(Exception):
    """What ends a process in the middle."""


def stop_at(images):
    def progress(done, _total):
        if done >= images:
            raise StopError

    return progress


def test_they_equal_the_forward_pass_expert_by_expert(snapshot):
    store = open_store("tiny")
    found, _ = activations(snapshot, store, no_progress)
    model, card = snapshot.model, snapshot.card
    x = normalise(as_float(resized([store], 16)), card.mean, card.sd)
    with torch.no_grad():
        h = model.shared(x)
        np.testing.assert_allclose(found.logits_nE, model.gate(h).logits, atol=1e-6)
        for number, expert in enumerate(model.experts):
            np.testing.assert_allclose(found.readouts_EnD[number], expert(h), atol=1e-6)
            norms = [float(np.sqrt((row.astype(float) ** 2).sum())) for row in found.readouts_EnD[number]]
            np.testing.assert_allclose(found.norms_nE[:, number], norms, rtol=1e-5)
        routing = model.route(x)
    assert found.indices_nK.tolist() == routing.indices.tolist()
    np.testing.assert_allclose(found.weights_nK, routing.weights, atol=1e-6)
    np.testing.assert_allclose(found.gates_nE, routing.gates(), atol=1e-6)
    assert found.chosen_nE.tolist() == (routing.gates().numpy() > 0).tolist()


def test_what_was_interrupted_goes_on_with_the_bits_of_an_undisturbed_one(snapshot):
    store = open_store("tiny")
    whole = [np.array(part) for part in vars(activations(snapshot, store, no_progress)[0]).values()]
    folder = snapshot.folder(store)
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    (folder / "ledger.jsonl").write_text("")  # as new
    with pytest.raises(StopError):
        activations(snapshot, store, stop_at(64))
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == 3
    seen = []
    again, reused = activations(snapshot, store, lambda done, total: seen.append((done, total)))
    assert not reused
    assert seen == [(64, 120), (96, 120), (120, 120)]
    assert (folder / "ledger.jsonl").read_text().splitlines() == lines
    for old, new in zip(whole, vars(again).values(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_second_time_they_are_read_and_nothing_is_computed(snapshot, monkeypatch):
    store = open_store("tiny")
    assert not activations(snapshot, store, no_progress)[1]
    monkeypatch.setattr(preparation, "at_size", None)
    found, reused = activations(snapshot, store, no_progress)
    assert reused
    assert isinstance(found.readouts_EnD, np.memmap)


def test_memory_holds_one_chunk_of_images(snapshot, monkeypatch):
    store = open_store("tiny")
    real, sizes = preparation.at_size, []
    monkeypatch.setattr(preparation, "at_size", lambda images, size: (sizes.append(len(images)), real(images, size))[1])
    activations(snapshot, store, no_progress)
    assert sizes == [32, 32, 32, 24]


@pytest.mark.parametrize("change", ["weights", "image size", "images"])
def test_another_model_or_other_images_are_computed_anew(snapshot, change):
    store = open_store("tiny")
    first, _ = activations(snapshot, store, no_progress)
    before = np.array(first.logits_nE)
    if change == "weights":
        with torch.no_grad():
            snapshot.model.shared[0].weight *= 1.5
        snapshot = of_run(snapshot.run, snapshot.model, snapshot.card, "other")
    elif change == "image size":
        data = snapshot.card.data.model_copy(update={"image_size": 8})
        card = snapshot.card.model_copy(update={"data": data})
        snapshot = of_run(snapshot.run, snapshot.model, card, card.sha256)
    else:
        content = Images(store.images_NHWC[::-1], store.ids, "turned round")
        store = write_store("tiny", content, snapshot.run.path / "elsewhere")
    fresh, reused = activations(snapshot, store, no_progress)
    assert not reused
    assert not np.allclose(fresh.logits_nE, before)


def test_duplicate_images_have_equal_activations_wherever_they_stand(snapshot):
    store = open_store("tiny")
    images = np.concatenate([store.images_NHWC[:50], store.images_NHWC[:37]])
    twice = write_store("twice", Images(images, [str(n) for n in range(87)], "x"), snapshot.run.path / "elsewhere")
    found, _ = activations(snapshot, twice, no_progress)
    np.testing.assert_array_equal(found.logits_nE[:37], found.logits_nE[50:])
    np.testing.assert_array_equal(found.readouts_EnD[:, :37], found.readouts_EnD[:, 50:])


def test_what_is_not_finite_is_named_and_the_rest_is_kept(snapshot):
    store = open_store("tiny")
    with torch.no_grad():
        snapshot.model.experts[2].readout[-1].bias[0] = float("nan")
    words = rf"run {snapshot.run.id}, expert 2, image tiny-000 of tiny: the activation is not finite"
    with pytest.raises(UserError, match=words):
        activations(snapshot, store, no_progress)
    ledger = (snapshot.folder(store) / "ledger.jsonl").read_text().splitlines()
    assert len(ledger) == 1
    assert json.loads(ledger[0])["chunk"] == 32


def test_they_are_computed_in_full_float32_whatever_the_process_has_chosen(snapshot, monkeypatch):
    """TF32 or bfloat16 within float32, as a user's script may have switched on, and the autocast around a call."""
    store = open_store("tiny")
    expected = [np.array(part) for part in vars(activations(snapshot, store, no_progress)[0]).values()]
    (snapshot.folder(store) / "ledger.jsonl").write_text("")  # as new
    seen, real = [], type(snapshot.model).route_and_readouts

    def watched(self, x, told=None):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return real(self, x, told)

    monkeypatch.setattr(type(snapshot.model), "route_and_readouts", watched)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found, cached = activations(snapshot, store, no_progress)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("medium", True)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not cached
    assert set(seen) == {("highest", False)}
    assert all(np.array_equal(a, b) for a, b in zip(vars(found).values(), expected, strict=True))


@pytest.mark.parametrize("changed", ["device", "torch"])
def test_numbers_made_under_other_conditions_are_not_taken_from_the_cache(snapshot, monkeypatch, changed):
    store = open_store("tiny")
    activations(snapshot, store, no_progress)
    assert activations(snapshot, store, no_progress)[1]
    ledger = snapshot.folder(store) / "ledger.jsonl"
    known = {"device": ":cpu:", "torch": torch.__version__}[changed]
    assert known in ledger.read_text()
    ledger.write_text(ledger.read_text().replace(known, {"device": ":cuda:", "torch": "2.0.0"}[changed]))
    assert not activations(snapshot, store, no_progress)[1]
