"""The tensors of several modules of one shape in one buffer, where a step uses them as stacks without copying them.

Each module keeps its own parameters and buffers, with their names, shapes and strides: they become views of the buffer.
Optimisers, checkpoints and exports see no difference. A stack costs nothing, and what a step does with parameters and
gradients does not grow with the number of modules.

Axes: E modules (experts), N numbers of one module, its tensors side by side.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_ALIGNMENT = 16  # numbers: each tensor starts where vector instructions and tensor cores may load it


class Shelf:
    """One buffer for like tensors of all modules.

    Args:
        owners_E: for each module, the dictionaries and keys that hold its tensors, in one order for all. Tensors at
            the same place in that order have one shape; all have one type and device.

    Attributes:
        stacks: for each tensor of a module, the stack of all modules', (E, ...).
    """

    def __init__(self, owners_E: Sequence[Sequence[tuple[dict[str, Any], str]]]) -> None:
        self._owners = list(chain.from_iterable(owners_E))
        first: list[Tensor] = [owner[key] for owner, key in owners_E[0]]
        padded = [-(-tensor.numel() // _ALIGNMENT) * _ALIGNMENT for tensor in first]
        self._starts = list(accumulate(padded, initial=0))
        self._like = [torch.empty_like(tensor, device="meta") for tensor in first]  # shapes and dense strides
        self._flat_EN = torch.zeros((len(owners_E), self._starts[-1]), dtype=first[0].dtype, device=first[0].device)
        self.stacks = self.stacked(self._flat_EN)
        for (owner, key), place in zip(self._owners, self.each(self._flat_EN), strict=True):
            place.copy_(owner[key].detach())
            owner[key].data = place
        self._pointers = self._addresses()

    def stacked(self, flat_EN: Tensor) -> list[Tensor]:
        """Views (E, ...) of a buffer like this one's."""
        experts, step = flat_EN.shape
        return [
            flat_EN.as_strided((experts, *like.shape), (step, *like.stride()), start)
            for like, start in zip(self._like, self._starts[:-1], strict=True)
        ]

    def each(self, flat_EN: Tensor) -> list[Tensor]:
        """Views of each module's tensors in a buffer like this one's, module after module."""
        stacks = self.stacked(flat_EN)
        return [stack[number] for number in range(len(flat_EN)) for stack in stacks]

    def new(self) -> Tensor:
        """A buffer like this one's, of zeros."""
        return torch.zeros_like(self._flat_EN)

    def tensors(self) -> list[Any]:
        """The modules' own tensors, module after module."""
        return [owner[key] for owner, key in self._owners]

    def current(self) -> bool:
        """Whether the modules still hold the views: moving or converting a module gives it tensors of its own."""
        return self._addresses() == self._pointers

    def _addresses(self) -> list[int]:
        return [owner[key].data_ptr() for owner, key in self._owners]


class Bank:
    """Parameters and running statistics of like modules as stacks.

    Args:
        modules: of one class and shape.

    Attributes:
        buffers: stacks (E, ...) of the modules' buffers by name; what is written there the modules have.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._names = [name for name, _ in self._modules[0].named_parameters()]
        self._parts = [part for module in self._modules for part in module.modules()]
        self._parameters = Shelf(
            [[_owner(module, name, "_parameters") for name in self._names] for module in self._modules]
        )
        self._shelves, self.buffers = [self._parameters], dict[str, Tensor]()
        named = dict(self._modules[0].named_buffers())
        for dtype in dict.fromkeys(buffer.dtype for buffer in named.values()):
            names = [name for name, buffer in named.items() if buffer.dtype == dtype]
            shelf = Shelf([[_owner(module, name, "_buffers") for name in names] for module in self._modules])
            self._shelves.append(shelf)
            self.buffers |= dict(zip(names, shelf.stacks, strict=True))
        device = self._parameters.stacks[0].device
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        self._gradients: tuple[list[Tensor], list[Tensor]] | None = None

    def current(self) -> bool:
        """Whether the modules still hold this bank's tensors, trainable and unwatched."""
        return all(shelf.current() for shelf in self._shelves) and _free(self._parts, self._parameters.tensors())

    def parameters(self) -> dict[str, Tensor]:
        """Stacks (E, ...) of the modules' parameters by name.

        Their gradients arrive in the modules' own ``parameter.grad``, accumulated as autograd would. Autograd does not
        see the modules' parameters themselves: hooks on them do not run.
        """
        return dict(zip(self._names, _Stacked.apply(self._anchor, self), strict=True))

    def stacks(self) -> tuple[Tensor, ...]:
        """What `parameters` hands out, without gradients."""
        return tuple(stack.detach() for stack in self._parameters.stacks)

    def receive(self, gradients: Sequence[Tensor]) -> None:
        """Give every module its gradients. The buffer behind them is kept: the next step overwrites it."""
        if self._gradients is None:
            flat_EN = self._parameters.new()
            self._gradients = self._parameters.stacked(flat_EN), self._parameters.each(flat_EN)
        stacks, views = self._gradients
        parameters = self._parameters.tensors()
        held = [parameter.grad for parameter in parameters]
        if all(gradient is None for gradient in held):
            for stack, gradient in zip(stacks, gradients, strict=True):
                stack.copy_(gradient)
            for parameter, view in zip(parameters, views, strict=True):
                parameter.grad = view
        elif all(gradient is view for gradient, view in zip(held, views, strict=True)):
            for stack, gradient in zip(stacks, gradients, strict=True):
                stack.add_(gradient)
        else:
            self._accumulate(parameters, held, gradients)

    def _accumulate(self, parameters: list[Any], held: list[Tensor | None], gradients: Sequence[Tensor]) -> None:
        """Some modules have gradients already and some have none: each its own tensors."""
        flat_EN = self._parameters.new()
        for stack, gradient in zip(self._parameters.stacked(flat_EN), gradients, strict=True):
            stack.copy_(gradient)
        for parameter, before, new in zip(parameters, held, self._parameters.each(flat_EN), strict=True):
            parameter.grad = new if before is None else before + new


def _owner(module: nn.Module, name: str, kind: str) -> tuple[dict[str, Any], str]:
    """The dictionary that holds a module's tensor of a dotted name, and its key there."""
    path, _, key = name.rpartition(".")
    return getattr(module.get_submodule(path), kind), key


def alike(modules: Sequence[nn.Module]) -> bool:
    """Whether a bank can hold them: one mode, parameters of one type on one device, trainable, unwatched."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    same = all(a.dtype == b.dtype and a.device == b.device for a, b in pairwise(parameters))
    return same and _free([part for module in modules for part in module.modules()], parameters)


def _free(parts: Iterable[nn.Module], parameters: Iterable[Tensor]) -> bool:
    """Whether all train or none, and no module or parameter is frozen or has hooks: stacks would pass that by."""
    parts = list(parts)
    if len({part.training for part in parts}) > 1:
        return False
    if any(part._forward_hooks or part._forward_pre_hooks for part in parts):  # noqa: SLF001
        return False
    return all(parameter.requires_grad and not parameter._backward_hooks for parameter in parameters)  # noqa: SLF001


class _Stacked(Function):
    """The stacks of a bank; their gradients go to the modules."""

    @staticmethod
    def forward(context: Any, _anchor: Tensor, bank: Bank) -> tuple[Tensor, ...]:
        context.bank = bank
        return bank.stacks()

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[None, None]:
        context.bank.receive(gradients)
        return None, None
