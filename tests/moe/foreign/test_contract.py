"""The shipped contract, kept by a small model, and caught where models break it."""

import pytest
import torch
from torch import Tensor, nn

from moe.errors import UserError
from moe.foreign.base import ForeignModel
from moe.foreign.checked import Foreign
from moe.routing import NONE
from moe.testing import ForeignModelContract


class Small(ForeignModel):
    """Four experts on the means of an image's quarters."""

    image_size, mean, sd = 4, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(0)
        self.gate = nn.Parameter(torch.randn(12, 4, generator=drawn))
        self.experts = nn.Parameter(torch.randn(4, 12, 5, generator=drawn))

    def route(self, x_BCSS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.shared_features(x_BCSS) @ self.gate
        kept, chosen = logits.topk(2)
        return logits, chosen, kept.softmax(1)

    def all_readouts(self, x_BCSS: Tensor) -> Tensor:
        return self.shared_features(x_BCSS) @ self.experts

    def shared_features(self, x_BCSS: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x_BCSS, 2).flatten(1)


class TestSmall(ForeignModelContract):
    def model(self) -> nn.Module:
        return Small()


class OfTheBatch(Small):
    def all_readouts(self, x_BCSS):
        return super().all_readouts(x_BCSS - x_BCSS.mean(0))


class TestTheContract(ForeignModelContract):
    def model(self) -> nn.Module:
        return OfTheBatch()

    def test_an_image_is_answered_alike_in_any_company(self) -> None:
        with pytest.raises(AssertionError):
            super().test_an_image_is_answered_alike_in_any_company()


def told(**changes) -> Small:
    """A model of which some answers are replaced."""
    model = Small()
    for name, value in changes.items():
        setattr(model, name, value)
    return model


LOGITS, CHOSEN, WEIGHTS = torch.zeros(2, 4), torch.tensor([[0, 1], [2, 3]]), torch.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": None}, "needs image_size"),
        ({"image_size": 4.0}, "needs image_size"),
        ({"image_size": True}, "needs image_size"),
        ({"image_size": 10**9}, "needs image_size"),
        ({"mean": 0.5}, "needs mean"),
        ({"mean": (0.5, 0.5)}, "needs mean"),
        ({"sd": (float("nan"),) * 3}, "needs sd"),
        ({"sd": (0.2, 0.0, 0.2)}, "must be above 0"),
        ({"route": None}, "has no route"),
        ({"all_readouts": 3}, "has no all_readouts"),
        ({"route": lambda _x: LOGITS}, "route of here gives torch.float32 (2, 4); needed are a tuple"),
        ({"route": lambda _x: (LOGITS, CHOSEN)}, "gives a tuple"),
        ({"route": lambda _x: (LOGITS.T, CHOSEN, WEIGHTS)}, "logits (B, E), here (2, E)"),
        ({"route": lambda _x: (LOGITS > 0, CHOSEN, WEIGHTS)}, "logits (B, E)"),
        ({"route": lambda _x: (LOGITS, CHOSEN.float(), WEIGHTS)}, "whole numbers of experts"),
        ({"route": lambda _x: (LOGITS, CHOSEN, WEIGHTS[:, :1])}, "weights, one for each chosen expert, (2, 2)"),
        ({"route": lambda _x: (LOGITS, CHOSEN + 2, WEIGHTS)}, "outside 0..3"),
        ({"route": lambda _x: (LOGITS, CHOSEN * 0, WEIGHTS)}, "the same expert twice"),
        ({"route": lambda _x: (LOGITS, CHOSEN, -WEIGHTS)}, "negative or not finite"),
        ({"route": lambda _x: (LOGITS, CHOSEN, WEIGHTS / 0)}, "negative or not finite"),
        ({"all_readouts": lambda _x: torch.zeros(3, 2, 5)}, "numbers (E, B, D), here (4, 2, D)"),
        ({"all_readouts": lambda _x: torch.zeros(4, 2)}, "numbers (E, B, D)"),
        ({"all_readouts": lambda _x: [1]}, "gives a list"),
        ({"all_readouts": lambda x: x @ x.new_ones(9, 9)}, "RuntimeError"),
    ],
)  # fmt: skip
def test_what_breaks_a_guarantee_is_named(changes, said):
    with pytest.raises(UserError) as caught:
        Foreign(told(**changes), "here")
    assert said in str(caught.value)
    assert "here" in str(caught.value)


def test_the_largest_weight_comes_first_and_empty_slots_last():
    chosen, weights = torch.tensor([[NONE, 1], [2, 3]]), torch.tensor([[0.7, 0.1], [0.2, 0.8]])
    routing, _ = Foreign(told(route=lambda _x: (LOGITS, chosen, weights)), "here").route_and_readouts(
        torch.zeros(2, 3, 4, 4)
    )
    assert routing.indices.tolist() == [[1, NONE], [3, 2]]
    torch.testing.assert_close(routing.weights, torch.tensor([[0.1, 0.0], [0.8, 0.2]]))


def test_other_sizes_later_are_refused():
    foreign = Foreign(told(all_readouts=lambda x: torch.zeros(4, len(x), len(x))), "here")
    with pytest.raises(UserError, match="after"):
        foreign.route_and_readouts(torch.zeros(3, 3, 4, 4))


def test_weights_and_preparation_make_the_checksum():
    one, same, other, prepared = Small(), Small(), Small(), told(mean=(0.5, 0.4, 0.31))
    with torch.no_grad():
        other.gate[0, 0] += 1
    digests = [Foreign(model, "here").digest for model in (one, same, other, prepared)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
