"""Routing records of many steps and several processes, put together.

A record is handled as a flat dictionary of its tensors, which is also the form it has in a checkpoint.

Axes: B images, E experts, K = top-k slots.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from moe.distributed import Joined, gather, world
from moe.routing import Routing, RoutingRecord


def to_tensors(record: RoutingRecord) -> dict[str, Tensor]:
    """The record's tensors under names such as ``view_a.logits``; what it has not is left out."""
    parts = {"view_a": record.view_a, "view_b": record.view_b, "clean": record.clean}
    tensors = {
        f"{part}.{field}": tensor
        for part, routing in parts.items()
        if routing is not None
        for field, tensor in routing.detached()._asdict().items()
        if tensor is not None
    }
    return tensors if record.labels_B is None else tensors | {"labels": record.labels_B}


def from_tensors(tensors: Mapping[str, Tensor]) -> RoutingRecord:
    """The record that `to_tensors` took apart."""

    def routing(part: str) -> Routing:
        return Routing(*(tensors[f"{part}.{field}"] for field in ("logits", "indices", "weights")))

    clean = routing("clean") if "clean.logits" in tensors else None
    return RoutingRecord(routing("view_a"), routing("view_b"), clean, tensors.get("labels"))


def detached(record: RoutingRecord) -> RoutingRecord:
    """The record without gradients, which would keep a step's activations alive."""
    clean = None if record.clean is None else record.clean.detached()
    return RoutingRecord(record.view_a.detached(), record.view_b.detached(), clean, record.labels_B)


def join(records: Sequence[RoutingRecord], device: torch.device) -> RoutingRecord | None:
    """All records as one, in new tensors on one device, float32 and int64; None if there are none.

    Clean images and labels are left out unless all records have them.
    """
    if not records:
        return None
    steps = [to_tensors(record) for record in records]
    names = [name for name in steps[0] if all(name in step for step in steps)]
    return from_tensors({name: _whole([step[name].to(device) for step in steps]) for name in names})


def _whole(parts: Sequence[Tensor]) -> Tensor:
    tensor = torch.cat(list(parts))
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def share(record: RoutingRecord | None, device: torch.device) -> RoutingRecord | None:
    """The rows of all processes, on each of them, in the order of ranks; None if no process has any.

    Every process has to call it, with or without rows. Numbers of rows may differ. Clean images and labels are left
    out unless all processes with rows have them. A single process gets back what it gave.

    Args:
        record: this process's rows as `join` returns them.
        device: where they live, and where a process without rows makes its empty tensors.
    """
    if world()[1] == 1:
        return record
    sizes = gather(torch.tensor([_sizes(record)], device=device))
    sizes = sizes[sizes[:, 0] > 0]
    if not len(sizes):
        return None
    experts, slots, clean, labels = (*sizes[0, 1:3].tolist(), *sizes[:, 3:].min(dim=0).values.tolist())
    mine = {} if record is None else to_tensors(record)
    joined = Joined(0 if record is None else len(record.view_a.logits), device)
    empty = to_tensors(_empty(experts, slots, clean=clean, labels=labels, device=device))
    return from_tensors({name: joined(mine.get(name, nothing)) for name, nothing in empty.items()})


def _sizes(record: RoutingRecord | None) -> list[int]:
    """B, E, K, and whether there are clean images and labels."""
    if record is None:
        return [0] * 5
    clean, labels = record.clean is not None, record.labels_B is not None
    return [*record.view_a.logits.shape, record.view_a.indices.shape[1], int(clean), int(labels)]


def _empty(experts: int, slots: int, *, clean: bool, labels: bool, device: torch.device) -> RoutingRecord:
    whole = torch.int64
    routing = Routing(
        torch.zeros(0, experts, device=device),
        torch.zeros(0, slots, dtype=whole, device=device),
        torch.zeros(0, slots, device=device),
    )
    marks = torch.zeros(0, dtype=whole, device=device) if labels else None
    return RoutingRecord(routing, routing, routing if clean else None, marks)
