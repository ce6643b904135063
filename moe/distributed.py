"""Sums and joins over the processes of a distributed run, with gradients; in a single process they change nothing.

Gradients follow DistributedDataParallel's convention: each process holds a loss L_r, the parameters receive the mean
over processes of their gradients, and so the whole minimises the mean of the L_r.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function


def world() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) outside a distributed run."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class _Sum(Function):
    """Sum over processes; the gradient of every process's loss comes back to every addend."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        total = x.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def all_sum(x: Tensor) -> Tensor:
    """Sum of `x` over all processes, on each of them."""
    return x if world()[1] == 1 else _Sum.apply(x)


class Joined:
    """Rows of all processes, in the order of ranks; their numbers of rows may differ, the other axes may not.

    Args:
        count: rows that this process has.
        device: where the rows live.

    Attributes:
        start: place of this process's first row in the whole.
        total: rows of all processes.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        rank, size = world()
        counts = torch.zeros(size, dtype=torch.int64, device=device)
        counts[rank] = count
        parts = all_sum(counts).tolist() if size > 1 else [count]
        self.start, self.total = sum(parts[:rank]), sum(parts)

    def __call__(self, rows: Tensor) -> Tensor:
        """All processes' rows, (total, ...) from (count, ...), with gradients."""
        if world()[1] == 1:
            return rows
        before = rows.new_zeros((self.start, *rows.shape[1:]))
        after = rows.new_zeros((self.total - self.start - len(rows), *rows.shape[1:]))
        return all_sum(torch.cat([before, rows, after]))


def gather(rows: Tensor) -> Tensor:
    """All processes' rows, see `Joined`."""
    return Joined(len(rows), rows.device)(rows)
