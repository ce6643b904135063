"""Controls: what each draws for views, epochs, validation and clean images, by hand and through a run's own step."""

from itertools import combinations

import pytest
import torch

from moe.data.loading import Batch, load_run_data
from moe.data.readers import no_progress
from moe.errors import UserError
from moe.gates.controls import FixedGate, RandomGate
from moe.gates.options import FixedConfig, RandomConfig, RandomViewConfig
from moe.gates.told import Known, Told, check_known, of_images, of_views
from moe.lightning_module import MoEModule
from moe.model import build_model
from moe.rng import VALIDATION, Stream, key, normal
from moe.testing import GateContract
from probes.activations import activations
from probes.snapshots import final_snapshot
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store

CPU, COUNT = torch.device("cpu"), 12


class TestRandom(GateContract):
    def config(self):
        return RandomConfig()


class TestRandomView(GateContract):
    def config(self):
        return RandomViewConfig()


class TestFixed(GateContract):
    def config(self):
        return FixedConfig()


def step(kind, epoch, order=range(COUNT), **changes):
    """Record of a run's step on images 0..11 of 3 classes, in an order."""
    module = MoEModule(tiny_config(gate__kind=kind, **changes), (0.5,) * 3, (0.25,) * 3, classes=3)
    module.train(epoch != VALIDATION)
    places = torch.tensor(list(order))
    images = torch.randint(0, 256, (COUNT, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = Batch(images[places], places % 3, places)
    with torch.no_grad():
        return module._two_view_step(batch, epoch)[1]


def test_random_by_hand():
    gate = RandomGate(3, 1, 4, 2, RandomConfig())
    routing = gate(torch.zeros(2, 3, 1, 1), torch.tensor([[0.1, -2.0, 0.3, 0.2], [5.0, 4.0, 3.0, 6.0]]))
    assert routing.indices.tolist() == [[2, 3], [3, 0]]
    assert routing.weights.tolist() == [[0.5, 0.5]] * 2


def test_fixed_by_hand():
    gate = FixedGate(3, 1, 4, 2, FixedConfig())
    routing = gate(torch.zeros(5, 3, 1, 1), torch.tensor([[0], [1], [2], [3], [6]]))
    assert routing.indices.tolist() == [[0, 1], [1, 2], [2, 3], [3, 0], [2, 3]]
    assert routing.logits[3].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("epochs", [(0, 1), (0, VALIDATION)])
def test_random_gives_an_image_the_same_experts_in_both_views_and_ever_after(epochs):
    first, later = (step("random", epoch) for epoch in epochs)
    for view in (first.view_b, later.view_a, later.view_b):
        assert torch.equal(first.view_a.indices, view.indices)
    order = [7, 3, 11, 0]
    assert torch.equal(step("random", epochs[1], order).view_a.indices, first.view_a.indices[order])
    assert not torch.equal(step("random", 0, seed=1).view_a.indices, first.view_a.indices)


def test_random_view_draws_each_view_and_epoch_anew_and_validation_always_the_same():
    records = [step("random_view", epoch) for epoch in (0, 1, VALIDATION)]
    drawn = [view.indices for record in records for view in (record.view_a, record.view_b)]
    assert not any(torch.equal(one, other) for one, other in combinations(drawn, 2))
    again = step("random_view", VALIDATION)
    assert torch.equal(again.view_a.indices, records[2].view_a.indices)
    assert torch.equal(again.view_b.indices, records[2].view_b.indices)


def test_fixed_follows_the_class_in_all_views():
    record = step("fixed", 0)
    expected = [[place % 3, place % 3 + 1] for place in range(COUNT)]
    assert record.view_a.indices.tolist() == record.view_b.indices.tolist() == expected


def test_a_clean_image_has_one_draw_by_its_place_for_random_and_random_view():
    known = Known(torch.tensor([40, 3]), torch.tensor([-1, -1]))
    expected = normal(key(5, Stream.ROUTE), known.places_B, 4)
    for told in (Told.IMAGE, Told.VIEW):
        assert torch.equal(of_images(told, known, seed=5, experts=4, device=CPU), expected)
    assert of_images(Told.NOISE, known, seed=5, experts=4, device=CPU) is None


def test_gates_that_look_at_the_image_are_told_what_they_always_were():
    noise, known = torch.randn(4, 3), Known(torch.arange(2), torch.zeros(2, dtype=torch.int64))
    assert of_views(Told.NOISE, known, noise, seed=0, training=True) is noise
    assert of_views(Told.NOISE, known, noise, seed=0, training=False) is None


def test_every_set_of_experts_is_as_likely_and_views_of_random_view_agree_by_chance():
    n, sets = 60_000, [set(pair) for pair in combinations(range(4), 2)]
    known = Known(torch.arange(n), torch.zeros(n, dtype=torch.int64))
    gate, h = RandomGate(1, 1, 4, 2, RandomConfig()), torch.zeros(n, 1, 1, 1)
    one = gate(h, of_images(Told.IMAGE, known, seed=0, experts=4, device=CPU)).indices.sort(dim=1).values
    shares = torch.unique(one, dim=0, return_counts=True)[1].double() / n
    assert len(shares) == len(sets)
    assert (shares - 1 / 6).abs().max() < 4 * (1 / 6 * 5 / 6 / n) ** 0.5
    other = gate(h, of_images(Told.IMAGE, known, seed=1, experts=4, device=CPU)).indices.sort(dim=1).values
    agreement = (one == other).all(dim=1).double().mean().item()
    assert agreement == pytest.approx(1 / 6, abs=4 * (1 / 6 * 5 / 6 / n) ** 0.5)


@pytest.mark.parametrize("config", [RandomConfig(), RandomViewConfig(), FixedConfig()])
def test_a_control_that_is_told_nothing_says_what_it_needs(config):
    model = build_model(tiny_config().model, config).eval()
    x = torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match=f"the gate {config.kind} does not see images and must be told of them"):
        model.route(x)
    assert model.all_readouts(x).shape[:2] == (4, 2)  # past the router


def test_controls_have_nothing_to_learn():
    for config in (RandomConfig(), RandomViewConfig(), FixedConfig()):
        assert list(build_model(tiny_config().model, config).gate.parameters()) == []


def test_fixed_needs_a_class_for_every_image():
    store = tiny_store()
    load_run_data(tiny_config(gate__kind="fixed"))
    check_known(Told.CLASS, torch.tensor([0, 2]), store.name, "fixed")
    check_known(Told.IMAGE, torch.tensor([-1]), store.name, "random")
    with pytest.raises(UserError, match=r"gate\.kind=fixed routes by class, which images of tiny lack"):
        check_known(Told.CLASS, torch.tensor([0, -1]), store.name, "fixed")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "random_view", "fixed"])
def test_probes_see_the_experts_that_validation_saw(kind, monkeypatch):
    """The store that is probed is the one that is watched: an image's place, and so its experts, are the same."""
    monkeypatch.setattr("probes.activations._CHUNK", 20)
    store = tiny_store()
    run = train(tiny_config(gate__kind=kind, train__epochs=1, seed=3), report=lambda _line: None)
    snapshot = final_snapshot(run)
    found, _ = activations(snapshot, store, no_progress)
    known = Known(torch.arange(len(store)), torch.from_numpy(store.labels_N))
    gate = snapshot.model.gate
    told = of_images(gate.told, known, seed=3, experts=4, device=CPU)
    expected = gate(torch.zeros(len(store), 1, 1, 1), told)
    assert found.indices_nK.tolist() == expected.indices.tolist()
    assert len({tuple(row) for row in found.indices_nK.tolist()}) > 2
