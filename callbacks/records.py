"""Records of many steps and several processes, put together.

A record is handled as a flat dictionary of its tensors by name, which is also the form it has in a checkpoint. Rows of
some tensors may be fewer than those of others.

Axes: B images, E experts, K = top-k slots.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from moe.distributed import Joined, gather, world
from moe.embedded import EmbeddingRecord
from moe.routing import Routing, RoutingRecord

Tensors = Mapping[str, Tensor]

_PARTS, _FIELDS = ("view_a", "view_b", "clean"), ("logits", "indices", "weights")
ROUTING = (*(f"{part}.{field}" for part in _PARTS for field in _FIELDS), "labels", "places")
EMBEDDING = tuple(EmbeddingRecord.__dataclass_fields__)
_AXES = 3  # most that a tensor has


def to_tensors(record: RoutingRecord) -> dict[str, Tensor]:
    """The record's tensors under the names of ROUTING; what it has not is left out."""
    parts = {part: getattr(record, part) for part in _PARTS}
    tensors = {
        f"{part}.{field}": getattr(routing.detached(), field)
        for part, routing in parts.items()
        if routing is not None
        for field in _FIELDS
    }
    marks = {"labels": record.labels_B, "places": record.places_B}
    return tensors | {name: tensor for name, tensor in marks.items() if tensor is not None}


def from_tensors(tensors: Tensors) -> RoutingRecord:
    """The record that `to_tensors` took apart."""

    def routing(part: str) -> Routing:
        return Routing(*(tensors[f"{part}.{field}"] for field in _FIELDS))

    clean = routing("clean") if "clean.logits" in tensors else None
    return RoutingRecord(
        routing("view_a"), routing("view_b"), clean, tensors.get("labels"), places_B=tensors.get("places")
    )


def detached(record: RoutingRecord) -> RoutingRecord:
    """The record without gradients, which would keep a step's activations alive."""
    clean = None if record.clean is None else record.clean.detached()
    views = record.view_a.detached(), record.view_b.detached()
    return RoutingRecord(*views, clean, record.labels_B, places_B=record.places_B)


def join(records: Sequence[RoutingRecord], device: torch.device) -> RoutingRecord | None:
    """All records as one, see `join_tensors`; None if there are none."""
    tensors = join_tensors([to_tensors(record) for record in records], device)
    return None if tensors is None else from_tensors(tensors)


def share(record: RoutingRecord | None, device: torch.device) -> RoutingRecord | None:
    """The rows of all processes, see `share_tensors`."""
    if world()[1] == 1:
        return record
    tensors = share_tensors(None if record is None else to_tensors(record), ROUTING, device)
    return None if tensors is None else from_tensors(tensors)


def join_tensors(steps: Sequence[Tensors], device: torch.device) -> dict[str, Tensor] | None:
    """The tensors of all steps as one, new and on one device, float32 and int64; None if there are no steps.

    What a step lacks is left out.
    """
    if not steps:
        return None
    names = [name for name in steps[0] if all(name in step for step in steps)]
    return {name: _whole([step[name].to(device) for step in steps]) for name in names}


def _whole(parts: Sequence[Tensor]) -> Tensor:
    tensor = torch.cat(list(parts))
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def share_tensors(tensors: Tensors | None, names: Sequence[str], device: torch.device) -> dict[str, Tensor] | None:
    """The rows of all processes, on each of them, in the order of ranks; None if no process has any.

    Every process has to call it, with or without rows. Numbers of rows may differ. What a process with rows lacks is
    left out. A single process gets back what it gave.

    Args:
        tensors: this process's, as `join_tensors` returns them.
        names: all that there may be.
        device: where they live, and where a process without rows makes its empty tensors.
    """
    if world()[1] == 1:
        return None if tensors is None else dict(tensors)
    own = [_described(None if tensors is None else tensors.get(name)) for name in names]
    table_PNA = gather(torch.tensor([own], device=device)).cpu()
    table_PNA = table_PNA[(table_PNA[:, :, 0] > 0).any(dim=1)]  # processes that have something
    joined, whole = dict[tuple[int, ...], Joined](), dict[str, Tensor]()
    for number, name in enumerate(names):
        if not len(table_PNA) or not (table_PNA[:, number, 0] > 0).all():
            continue
        axes, floating, _, *shape = table_PNA[0, number].tolist()
        nothing = torch.zeros((0, *shape[: axes - 1]), dtype=torch.float32 if floating else torch.int64, device=device)
        mine = nothing if tensors is None else tensors[name]
        rows = tuple(table_PNA[:, number, 2].tolist())
        if rows not in joined:
            joined[rows] = Joined(len(mine), device)
        whole[name] = joined[rows](mine)
    return whole or None


def _described(tensor: Tensor | None) -> list[int]:
    """Number of axes, whether its numbers are floating, rows, and the lengths of the other axes; zeros for none."""
    if tensor is None:
        return [0] * (2 + _AXES)
    rest = [*tensor.shape[1:], *([0] * _AXES)][: _AXES - 1]
    return [tensor.dim(), int(tensor.is_floating_point()), len(tensor), *rest]
