"""Experts choose images: a batch by hand, a slow reference, thresholds, and images that nobody takes."""

import copy

import pytest
import torch

from moe.balancing.options import BALANCING
from moe.batched import BatchedExperts
from moe.config import ModelConfig
from moe.experts import loads, weighted_sum
from moe.gates.expert_choice import ExpertChoiceGate
from moe.gates.options import ExpertChoiceConfig
from moe.model import build_model
from moe.routing import NONE, Routing
from moe.testing import GateContract


class TestContract(GateContract):
    def config(self):
        return ExpertChoiceConfig(threshold_rate=0.5)


def gate_of(experts, top_k, rate=0.1):
    """A gate whose latents are its logits."""
    gate = ExpertChoiceGate(experts, 1, experts, top_k, ExpertChoiceConfig(threshold_rate=rate))
    gate.logits = torch.nn.Flatten()
    return gate


def of_scores(scores):
    """Latents whose scores these are, for rows that sum to 1."""
    return torch.tensor(scores).log()[:, :, None, None]


def drawn(images, experts, seed, dtype=torch.float64):
    return torch.randn(images, experts, dtype=dtype, generator=torch.Generator().manual_seed(seed))


HAND = [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.4, 0.2, 0.4]]


def test_views_of_an_image_compete_in_one_batch_whichever_comes_first():
    views = drawn(6, 4, 0), drawn(6, 4, 1)
    one, two = (gate_of(4, 2).double().train()(torch.cat(pair)[:, :, None, None]) for pair in (views, views[::-1]))
    torch.testing.assert_close(one.gates(), two.gates().roll(6, dims=0))
    assert one.load().tolist() == [6] * 4
    alone = gate_of(4, 2).double().train()(views[0][:, :, None, None])
    assert alone.load().tolist() == [3] * 4 != one.rows(0, 6).load().tolist()


def test_a_batch_by_hand():
    """Four images, three experts, 1.5 = 2 * 3 / 4 of them an image: each expert takes two."""
    gate = gate_of(3, 2).train()
    assert gate.capacity(3) == 2
    routing = gate(of_scores(HAND[:3]))
    assert routing.load().tolist() == [2, 2, 2]
    # expert 0 takes images 0 and 1, expert 1 images 2 and 1; of expert 2's ties any two
    assert [set(row[:2]) & {0, 1} for row in routing.indices.tolist()] == [{0}, {0, 1}, {1}]
    routing = gate_of(3, 1).train()(of_scores(HAND[2:]))  # 2 / 3 images each: one
    assert routing.indices.tolist() == [[0, 1, NONE], [2, NONE, NONE]]
    torch.testing.assert_close(routing.weights, torch.tensor([[0.5, 0.4, 0.0], [0.4, 0.0, 0.0]]))
    torch.testing.assert_close(routing.gates(), torch.tensor([[0.5, 0.4, 0.0], [0.0, 0.0, 0.4]]))
    torch.testing.assert_close(routing.importance(), torch.tensor([0.5, 0.4, 0.4]))


def slow(logits, top_k):
    """Algorithm of Section 3.1 in loops: gates (B, E)."""
    images, experts = logits.shape
    scores = [[torch.exp(x) / torch.exp(row).sum() for x in row] for row in logits]
    capacity = round(top_k * images / experts)
    gates = [[logits.new_zeros(())] * experts for _ in range(images)]
    for expert in range(experts):
        for image in sorted(range(images), key=lambda n: -scores[n][expert].item())[:capacity]:
            gates[image][expert] = scores[image][expert]
    return torch.stack([torch.stack(row) for row in gates])


@pytest.mark.parametrize(("images", "experts", "top_k"), [(12, 4, 1), (12, 4, 2), (9, 3, 2), (20, 5, 3), (8, 8, 8)])
def test_values_and_gradients_are_those_of_a_loop(images, experts, top_k):
    logits, target = drawn(images, experts, 0), drawn(images, experts, 1)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    routing = gate_of(experts, top_k).double().train()(ours[:, :, None, None])
    expected = slow(theirs, top_k)
    torch.testing.assert_close(routing.gates(), expected)
    assert routing.load().tolist() == [round(top_k * images / experts)] * experts
    (routing.gates() * target).sum().backward()
    (expected * target).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("images", "experts", "top_k", "capacity"),
    [(512, 8, 2, 128), (3, 8, 2, 1), (1, 4, 4, 1), (10, 4, 1, 3), (9, 4, 1, 2)],
)
def test_every_expert_takes_its_share_and_never_none(images, experts, top_k, capacity):
    gate = gate_of(experts, top_k).train()
    assert gate.capacity(images) == capacity
    assert gate(drawn(images, experts, 0)[:, :, None, None]).load().tolist() == [capacity] * experts


def test_thresholds_are_the_mean_of_the_first_steps_and_then_a_running_average():
    gate = gate_of(4, 2, rate=0.4).double().train()
    assert gate.threshold_E.tolist() == [0.25] * 4
    smallest, expected = [], None
    for step in range(5):
        scores = drawn(10, 4, step).softmax(dim=1)
        smallest.append(scores.sort(dim=0, descending=True).values[4])
        rate = max(0.4, 1 / (step + 1))
        expected = smallest[0] if step == 0 else (1 - rate) * expected + rate * smallest[-1]
        gate(scores.log()[:, :, None, None])
        torch.testing.assert_close(gate.threshold_E, expected)
        if step == 1:
            torch.testing.assert_close(gate.threshold_E, torch.stack(smallest).mean(dim=0))
    gate.eval()(drawn(10, 4, 9)[:, :, None, None])
    torch.testing.assert_close(gate.threshold_E, expected)


def test_in_evaluation_an_image_has_the_experts_whose_thresholds_it_reaches():
    gate = gate_of(3, 2).eval()
    gate.threshold_E.copy_(torch.tensor([0.55, 0.25, 0.35]))
    routing = gate(of_scores([*HAND, [0.5, 0.2, 0.3]]))
    assert [sorted(set(row) - {NONE}) for row in routing.indices.tolist()] == [[0], [0, 1], [1], [2], []]
    torch.testing.assert_close(routing.weights[1], torch.tensor([0.6, 0.3, 0.0]))


def test_loads_in_evaluation_are_those_of_training_for_images_alike():
    gate = gate_of(4, 2, rate=0.05).train()
    skew = torch.tensor([1.0, 0.5, 0.0, -0.5])
    for step in range(200):
        gate((drawn(64, 4, step, torch.float32) + skew)[:, :, None, None])
    routing = gate.eval()((drawn(4000, 4, 999, torch.float32) + skew)[:, :, None, None])
    assert (routing.load() / 4000).tolist() == pytest.approx([0.5] * 4, abs=0.04)


def test_the_thresholds_are_part_of_the_model():
    assert {"threshold_E", "steps"} <= set(gate_of(3, 1).state_dict())


ROUTINGS = {
    "some images without": [[0, 1, NONE, NONE], [2, NONE, NONE, NONE], [NONE] * 4, [3, 2, 1, 0]] * 3,
    "an expert without": [[0, 1, 3, NONE], [NONE] * 4, [3, 1, NONE, NONE], [0, NONE, NONE, NONE]] * 3,
    "nobody": [[NONE] * 4] * 6,
}  # fmt: skip


def latents(model, images):
    shape = images, model.gate.logits[0].in_channels, 4, 4
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def outcome(model, chosen, *, at_once):
    """What a step gives, and all of its gradients."""
    indices = torch.tensor(chosen)
    weights = torch.rand(indices.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = weights.masked_fill(indices == NONE, 0.0).requires_grad_()
    h = latents(model, len(indices)).requires_grad_()
    routing = Routing(torch.zeros(len(indices), 4, dtype=torch.float64), indices, weights)
    batched = BatchedExperts(model.experts) if at_once else None
    z = weighted_sum(model.experts, h, routing, batched)
    assert not at_once or not routing.load().any() or batched._bank is not None, "the plain path was taken"
    (z * drawn(*z.shape, 3)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.experts.named_parameters()}
    return z.detach(), h.grad, weights.grad, gradients, routing


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr("moe.batched._MOST", 100.0)
    torch.manual_seed(0)
    return build_model(ModelConfig(width=0.0625), ExpertChoiceConfig()).double().train()


@pytest.mark.parametrize("chosen", ["some images without", "an expert without"])
def test_the_weighted_sum_is_that_of_a_loop_over_images(model, chosen):
    model.eval()  # batch norm of the running statistics: an expert's images do not matter to one another
    z, _, _, _, routing = outcome(model, ROUTINGS[chosen], at_once=False)
    h = latents(model, len(z))
    for image, (experts, weights) in enumerate(zip(routing.indices.tolist(), routing.weights, strict=True)):
        expected = torch.zeros_like(z[0])
        for expert, weight in zip(experts, weights, strict=True):
            if expert != NONE:
                expected = expected + weight * model.experts[expert](h[image : image + 1])[0]
        torch.testing.assert_close(z[image], expected)


@pytest.mark.parametrize("chosen", ROUTINGS)
def test_experts_at_once_are_those_one_after_another(model, chosen):
    other = copy.deepcopy(model)
    plain, batched = outcome(model, ROUTINGS[chosen], at_once=False), outcome(other, ROUTINGS[chosen], at_once=True)
    for ours, theirs in zip(plain[:3], batched[:3], strict=True):
        empty = torch.zeros(())
        torch.testing.assert_close(empty if ours is None else ours, empty if theirs is None else theirs)
    for name, gradient in plain[3].items():
        found = batched[3][name]
        torch.testing.assert_close(found if gradient is None else gradient, gradient if found is None else found)
    for one, two in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two)


def test_an_image_that_nobody_takes_lies_at_the_origin_and_the_loss_is_finite(model):
    gate = model.gate.train()
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    z, routing, counted = model.embed(x)
    assert counted == loads(routing, shared=True)
    assert counted.own == [gate.capacity(6)] * 4 == [3] * 4
    model.eval()
    gate.threshold_E.fill_(2.0)
    z, routing, _ = model.embed(x)
    assert (routing.indices == NONE).all()
    assert z.shape == (6, model.embedding)
    assert not z.any()


@pytest.mark.parametrize("name", [name for name, loss in BALANCING.usable().items() if not loss.needs_noise])
def test_balancing_losses_take_it(name):
    logits = drawn(16, 4, 0).requires_grad_()
    routing = gate_of(4, 2).double().train()(logits[:, :, None, None])
    loss = BALANCING[name].load()(BALANCING[name]())(routing)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
