"""Records taken apart, put together and joined."""

import pytest
import torch

from callbacks import records
from moe.routing import Routing, RoutingRecord

CPU = torch.device("cpu")


def routing(count, seed, dtype=torch.float32):
    logits = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    kept, indices = logits.topk(2, dim=1)
    return Routing(logits, indices, kept.softmax(dim=1))


def record(count, seed=0, *, clean=True, labels=True):
    return RoutingRecord(
        routing(count, seed), routing(count, seed + 1),
        routing(count, seed + 2) if clean else None, torch.arange(count) if labels else None,
    )  # fmt: skip


def same(one, other):
    ours, theirs = records.to_tensors(one), records.to_tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("clean", "labels"), [(True, True), (False, False), (True, False), (False, True)])
def test_a_record_survives_being_taken_apart(clean, labels):
    one = record(5, clean=clean, labels=labels)
    assert len(records.to_tensors(one)) == 6 + 3 * clean + labels
    back = records.from_tensors(records.to_tensors(one))
    assert same(back, one)
    assert isinstance(back.view_b, Routing)


def test_rows_are_joined_in_order():
    parts = [record(3, 0), record(5, 10)]
    whole = records.join(parts, CPU)
    for name, tensor in records.to_tensors(whole).items():
        assert torch.equal(tensor[:3], records.to_tensors(parts[0])[name])
        assert torch.equal(tensor[3:], records.to_tensors(parts[1])[name])


def test_what_one_record_lacks_the_whole_lacks():
    whole = records.join([record(3), record(3, clean=False), record(3, labels=False)], CPU)
    assert whole.clean is None
    assert whole.labels_B is None
    assert len(whole.view_a.logits) == 9


def test_nothing_joined_is_nothing():
    assert records.join([], CPU) is None


def test_numbers_are_of_one_kind_whatever_they_came_as():
    half = Routing(*(part.to(torch.bfloat16) if part.is_floating_point() else part.int() for part in routing(4, 0)[:3]))
    whole = records.join([RoutingRecord(half, half, None, torch.zeros(4, dtype=torch.int16))], CPU)
    kinds = {name: tensor.dtype for name, tensor in records.to_tensors(whole).items()}
    assert kinds["view_a.logits"] == kinds["view_b.weights"] == torch.float32
    assert kinds["view_a.indices"] == kinds["labels"] == torch.int64


def test_a_detached_record_is_no_copy():
    views = routing(4, 0), routing(4, 1)
    attached = RoutingRecord(*(view._replace(weights=view.weights.clone().requires_grad_()) for view in views))
    kept = records.detached(attached)
    assert not any(tensor.requires_grad for tensor in records.to_tensors(kept).values())
    assert kept.view_a.weights.data_ptr() == attached.view_a.weights.data_ptr()


def test_a_single_process_shares_with_nobody():
    one = record(3)
    assert records.share(one, CPU) is one
    assert records.share(None, CPU) is None
