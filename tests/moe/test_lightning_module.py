"""The step: its random numbers, its values, the record it shows."""

import pytest
import torch

from moe.data.draw import draw_noise
from moe.data.loading import Batch
from moe.lightning_module import MoEModule
from moe.losses import importance_cv2
from tests.conftest import tiny_config

COUNT = 12


def images(seed=0):
    return torch.randint(0, 256, (COUNT, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def module(**changes):
    return MoEModule(tiny_config(**changes), (0.5,) * 3, (0.25,) * 3, classes=3)


def batch(places):
    places = torch.tensor(places)
    return Batch(images()[places], places % 3, places)


def step(of, places, epoch=0):
    return of._two_view_step(batch(places), epoch)[:2]


def noise(places, epoch, seed=0):
    return draw_noise(4, places, seed=seed, epoch=epoch)


def test_noise_is_a_function_of_seed_epoch_view_and_image():
    places = torch.arange(COUNT)
    whole = noise(places, 0)
    assert whole.shape == (2 * COUNT, 4)
    some = torch.tensor([5, 2])
    assert torch.equal(noise(some, 0), whole[[5, 2, COUNT + 5, COUNT + 2]])
    others = [noise(places, 1), noise(places, 0, seed=1), whole.roll(COUNT, 0), whole.roll(1, 0)]
    assert not any(torch.equal(whole, other) for other in others)
    torch.manual_seed(99)
    assert torch.equal(noise(places, 0), whole)


def test_routing_of_an_image_does_not_depend_on_its_place_in_the_batch():
    """Batch norm aside, which is frozen here while the gate stays noisy."""
    of = module().eval()
    of.model.gate.training = True
    of.training = True
    order = [7, 3, 11, 0]
    _, whole = step(of, list(range(COUNT)))
    _, some = step(of, order)
    for view in ("view_a", "view_b"):
        assert torch.equal(getattr(some, view).indices, getattr(whole, view).indices[order])
    of.training = False
    _, quiet = step(of, list(range(COUNT)))
    assert torch.equal(quiet.view_a.logits, whole.view_a.logits)


@pytest.mark.parametrize("objective", ["contrastive", "supervised"])
def test_the_loss_is_objective_plus_weighted_importance(objective):
    of = module(loss__objective=objective, loss__importance_weight=0.3).train()
    values, record = step(of, list(range(COUNT)))
    gates = torch.cat([record.view_a.gates(), record.view_b.gates()])
    torch.testing.assert_close(values["importance_cv2"], importance_cv2(gates))
    torch.testing.assert_close(values["loss"], values["objective"] + 0.3 * values["importance_cv2"])
    assert ("accuracy" in values) == (objective == "supervised")


def test_the_record_holds_no_gradients_and_the_loss_does():
    values, record = step(module().train(), list(range(COUNT)))
    for view in (record.view_a, record.view_b):
        assert not any(part.requires_grad for part in view[:3])
        assert view.noisy is view.scale is None  # nothing keeps a step's scores alive
    assert values["loss"].requires_grad


def test_a_validation_step_shows_routing_and_embeddings_of_the_same_images(monkeypatch):
    shown = torch.arange(COUNT) % 2 == 0
    of = MoEModule(tiny_config(), (0.5,) * 3, (0.25,) * 3, 3, shown).eval()
    monkeypatch.setattr(of, "log_dict", lambda *_args, **_options: None)
    monkeypatch.setattr(type(of), "_several", False)
    places = [7, 3, 4, 0]
    with torch.no_grad():
        record = of.validation_step(batch(places), 0)
        x = of._normalised(images()[places] / 255)
        z, readouts = of.model(x), of.model.all_readouts(x)
    embedding, routing = record["embedding"], record["routing"]
    torch.testing.assert_close(embedding.z_BD, z)
    torch.testing.assert_close(embedding.readouts_WED, readouts[:, 2:].transpose(0, 1))  # 4 and 0 are shown
    assert embedding.places_B.tolist() == routing.places_B.tolist() == places
    assert embedding.labels_B.tolist() == [place % 3 for place in places]
    assert embedding.view_a_BD.shape == embedding.view_b_BD.shape == z.shape


def test_places_stay_on_the_cpu():
    moved = module().transfer_batch_to_device(batch([0, 1, 2]), torch.device("meta"), 0)
    assert (moved.images.device.type, moved.labels.device.type, moved.places.device.type) == ("meta", "meta", "cpu")


def test_importance_weight_zero_switches_the_term_off():
    values, _ = step(module(loss__importance_weight=0.0).train(), list(range(COUNT)))
    assert values["loss"] == values["objective"]
