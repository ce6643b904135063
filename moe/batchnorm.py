"""Batch norm over all processes of a distributed run.

torch's own SyncBatchNorm refuses CPU tensors, so that it could not be checked against one process with the whole
batch; this one computes the same on any device, also for a process that has no image of the batch (an expert idle
there).

Axes: B images, C channels, H height, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from moe.distributed import all_sum, world
from moe.precision import at_least_float32


class BatchNorm(_BatchNorm):
    """Batch norm of (B, C) or (B, C, H, W); one process: torch's, several: over the images of all of them.

    Attributes:
        across_processes: False lets each process normalise its own images, which makes results depend on the number
            of processes.
    """

    across_processes: bool = True

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.dim() not in (2, 4):
            raise ValueError(f"batch norm needs (B, C) or (B, C, H, W), not {tuple(input.shape)}")

    @property
    def joint(self) -> bool:
        """Whether statistics are those of all processes' images."""
        return self.training and self.across_processes and world()[1] > 1

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalised images, same shape and type."""
        if not self.joint:
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._jointly(at_least_float32(input)).to(input.dtype)

    def _jointly(self, x: Tensor) -> Tensor:
        axes, shape = ([0], (1, -1)) if x.dim() == 2 else ([0, 2, 3], (1, -1, 1, 1))
        values = x.new_tensor([x.numel() // x.shape[1]])
        sums = all_sum(torch.cat([x.sum(axes), values]))
        count = sums[-1]
        mean_C = sums[:-1] / count
        centred = x - mean_C.view(shape)
        var_C = all_sum(centred.square().sum(axes)) / count
        self._remember(mean_C.detach(), (var_C * count / (count - 1)).detach())
        scale_C = torch.rsqrt(var_C + self.eps) * self.weight
        result: Tensor = centred * scale_C.view(shape) + self.bias.view(shape)
        return result

    def _remember(self, mean_C: Tensor, unbiased_var_C: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum or 0.0)
        self.running_var.lerp_(unbiased_var_C, self.momentum or 0.0)


def normalise_across_processes(module: nn.Module, across: bool) -> None:
    """Set `across_processes` of every batch norm in a module."""
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.across_processes = across
