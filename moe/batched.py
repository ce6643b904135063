"""All experts as one computation: as many operator calls for 16 experts as for 4.

Each expert gets the same number of rows; rows beyond its images hold zeros, before and after every layer, and so do
their gradients. Sums over rows are then sums over the expert's images: batch norm sees exactly these. A 3x3 convolution
is one batched matrix product over patches. Results equal those of `Expert`, computed one after another, up to rounding.

Axes: B images of a batch, K = top-k slots, S = B * K slots in all, F of them filled, E experts, R rows of an expert,
T = E * R rows in all, C channels in, O channels out, H height, W width, P = H * W pixels, D embedding.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe.bank import Bank, alike
from moe.batchnorm import BatchNorm
from moe.distributed import world
from moe.precision import at_least_float32
from moe.routing import NONE, Routing

# rows grow by eighths of an even share, so that few shapes occur; beyond three times of it padding costs too much
_STEP, _MOST = 8, 3.0
_TENSOR_CORES = 8  # half-precision matrices are fastest with channels in multiples of this


class Seats(NamedTuple):
    """Which row each routed image takes.

    Attributes:
        count_E: images of each expert.
        valid_T: bool, whether a row has an image.
        slot_T: the slot (image * K + k) of each row; 0 where it has none.
        row_S: the row of each slot; 0 for empty ones.
        filled_S: bool, whether a slot has an expert; None: all have.
    """

    count_E: Tensor
    valid_T: Tensor
    slot_T: Tensor
    row_S: Tensor
    filled_S: Tensor | None = None


def seats(routing: Routing, rows: int, filled: int) -> Seats:
    """Rows by expert, and there by slot; an expert's images beyond `rows` all fall on its last row.

    Args:
        routing: the gate's decisions.
        rows: of every expert.
        filled: slots that have an expert, F.
    """
    chosen_S, count_E = routing.indices.flatten(), routing.load()
    order_F = chosen_S.argsort(stable=True)[len(chosen_S) - filled :]  # empty slots come first
    expert_F = chosen_S.index_select(0, order_F)
    rank_F = torch.arange(filled, device=order_F.device) - (count_E.cumsum(0) - count_E).index_select(0, expert_F)
    sorted_row_F = expert_F * rows + rank_F.clamp_max(rows - 1)
    slot_T = order_F.new_zeros(len(count_E) * rows).scatter_(0, sorted_row_F, order_F)
    valid_ER = torch.arange(rows, device=order_F.device) < count_E.unsqueeze(1)
    row_S = torch.zeros_like(chosen_S).scatter_(0, order_F, sorted_row_F)
    return Seats(count_E, valid_ER.flatten(), slot_T, row_S, None if filled == len(chosen_S) else chosen_S != NONE)


def rows_needed(sizes: list[int]) -> int | None:
    """Rows that every expert gets when they have `sizes` images.

    None: so uneven that padding would cost more than it saves. Few values occur, so that memory and kernels are those
    of an earlier step.
    """
    even = -(-sum(sizes) // len(sizes))
    step = max(1, -(-even // _STEP))
    rows = -(-max(sizes) // step) * step
    return rows if rows <= max(_MOST * even, step) else None


def _multiple_of(dtype: torch.dtype) -> int:
    return 1 if dtype in (torch.float32, torch.float64) else _TENSOR_CORES


class BatchedExperts:
    """The experts of a model as one computation.

    Args:
        experts: `Expert`s of one shape.
    """

    def __init__(self, experts: nn.ModuleList) -> None:
        self.experts = experts
        self._bank: Bank | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model makes a bank of its own."""
        return self.__dict__ | {"_bank": None}

    def bank(self) -> Bank | None:
        """The experts' tensors as stacks; None where the plain path is needed.

        That is with several processes, whose exchange of gradients watches the experts' own parameters, and where
        something else watches an expert, or experts are not alike (one is frozen, say).
        """
        if world()[1] > 1:
            return None
        if self._bank is None or not self._bank.current():
            self._bank = None
            if not alike(list(self.experts)):
                return None
            with torch.inference_mode(mode=False), torch.no_grad():
                self._bank = Bank(self.experts)
        return self._bank

    def weighted_sum(self, h_BCHW: Tensor, routing: Routing, rows: int, bank: Bank, *, filled: int) -> Tensor:
        """See `moe.experts.weighted_sum` and `seats`; no expert may have more than `rows` images."""
        device = h_BCHW.device.type
        half = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if half else h_BCHW.dtype
        place = seats(routing, rows, filled)
        with torch.autocast(device, enabled=False):
            network = _Network(bank, self.experts, place, dtype)
            z_TD = at_least_float32(network(h_BCHW.to(dtype), routing.indices.shape[1]))
            z_BKD = cast("Tensor", _Leave.apply(z_TD, place)).view(*routing.indices.shape, -1)
            return (z_BKD * routing.weights.unsqueeze(2)).sum(dim=1)


class _Network:
    """One pass through the experts' layers, in (E, R, H, W, C) layout.

    Args:
        bank: the experts' tensors.
        experts: the modules that own them; they say which layers there are.
        place: which rows have images.
        dtype: of the matrix products.
    """

    def __init__(self, bank: Bank, experts: nn.ModuleList, place: Seats, dtype: torch.dtype) -> None:
        self.parameters, self.buffers, self.place, self.dtype = bank.parameters(), bank.buffers, place, dtype
        self.expert = cast("Any", experts[0])
        self.valid_ER = place.valid_T.view(len(experts), -1)
        self.multiple = _multiple_of(dtype)
        # an expert with one image is normalised by its running statistics, see Expert.forward
        several_E = place.count_E > 1
        self.own_E = several_E if self.expert.training else torch.zeros_like(several_E)

    def __call__(self, h_BCHW: Tensor, top_k: int) -> Tensor:
        """Readouts (T, D)."""
        h_BHWC = self._widened(h_BCHW.permute(0, 2, 3, 1), -1)
        x = cast("Tensor", _Enter.apply(h_BHWC.contiguous(), self.place, top_k))
        x = x.view(*self.valid_ER.shape, *x.shape[1:])
        for block_name, block in self.expert.blocks.named_children():
            for unit_name, unit in block.named_children():
                x = self._unit(f"blocks.{block_name}.{unit_name}", unit, x)
        x = x.mean(dim=(2, 3))
        for name, layer in self.expert.readout.named_children():
            x = self._readout_layer(f"readout.{name}", layer, x)
        return x[..., : self.expert.readout[-1].out_features].flatten(0, 1)

    def _unit(self, name: str, unit: Any, x: Tensor) -> Tensor:
        y = self._norm(f"{name}.norm1", self._conv(f"{name}.conv1", x, unit.stride), unit.norm1)
        y = F.relu(y, inplace=True)
        y = self._norm(f"{name}.norm2", self._conv(f"{name}.conv2", y, 1), unit.norm2)
        if not isinstance(unit.shortcut, nn.Identity):
            x = self._pointwise(f"{name}.shortcut.0", x[:, :, :: unit.stride, :: unit.stride])
            x = self._norm(f"{name}.shortcut.1", x, unit.shortcut[1])
        return F.relu(y + x, inplace=True)

    def _readout_layer(self, name: str, layer: nn.Module, x_ERC: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return self._linear(name, x_ERC, bias=layer.bias is not None)
        if isinstance(layer, BatchNorm):
            return self._norm(name, x_ERC[:, :, None, None], layer)[:, :, 0, 0]
        return F.relu(x_ERC, inplace=True)

    def _linear(self, name: str, x_ERC: Tensor, *, bias: bool) -> Tensor:
        weight_EOC = self._widened(self.parameters[f"{name}.weight"].to(self.dtype), 1, 2)
        if not bias:
            return x_ERC.bmm(weight_EOC.transpose(1, 2))
        bias_EO = self._widened(self.parameters[f"{name}.bias"].to(self.dtype), 1)
        return torch.baddbmm(bias_EO.unsqueeze(1), x_ERC, weight_EOC.transpose(1, 2))

    def _conv(self, name: str, x: Tensor, stride: int) -> Tensor:
        weight = self._widened(self.parameters[f"{name}.weight"].to(self.dtype), 1, 2)
        return cast("Tensor", _Convolution.apply(x, weight.permute(0, 1, 3, 4, 2), stride))

    def _pointwise(self, name: str, x: Tensor) -> Tensor:
        weight_EOC = self._widened(self.parameters[f"{name}.weight"].to(self.dtype), 1, 2).flatten(2)
        return x.flatten(1, 3).bmm(weight_EOC.transpose(1, 2)).view(*x.shape[:4], -1)

    def _norm(self, name: str, x: Tensor, norm: Any) -> Tensor:
        scale_EC, shift_EC = (self._widened(self.parameters[f"{name}.{part}"], 1) for part in ("weight", "bias"))
        running = [self.buffers[f"{name}.running_{part}"] for part in ("mean", "var")]
        wide = [self._widened(part, 1) for part in running]
        y, mean_EC, unbiased_EC = cast(
            "tuple[Tensor, Tensor, Tensor]",
            _MaskedNorm.apply(x, scale_EC, shift_EC, *wide, self.valid_ER, self.place.count_E, self.own_E, norm.eps),
        )
        if self.expert.training:
            weight_E1 = self.own_E.unsqueeze(1).to(mean_EC.dtype) * norm.momentum
            for old, new in zip(running, (mean_EC, unbiased_EC), strict=True):
                old.lerp_(new[:, : old.shape[1]], weight_E1)
            self.buffers[f"{name}.num_batches_tracked"].add_(self.own_E)
        return y

    def _widened(self, x: Tensor, *axes: int) -> Tensor:
        """Zero channels up to a multiple that tensor cores like; they stay zero throughout."""
        pad = [0] * (2 * x.dim())
        for axis in axes:
            place = x.dim() - 1 - axis % x.dim()
            pad[2 * place + 1] = -x.shape[axis] % self.multiple
        return F.pad(x, pad) if any(pad) else x


def _taken(x: Tensor, index: Tensor, valid: Tensor | None = None) -> Tensor:
    """Rows of x; zeros where not valid, of which None says that there are none."""
    rows = x.index_select(0, index)
    return rows if valid is None else rows.masked_fill_(~valid.view(-1, *[1] * (x.dim() - 1)), 0)


class _Enter(Function):
    """Images (B, ...) to the rows of their experts (T, ...).

    Both directions pick rows: nothing is added up by atomic operations, in an order that changes.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, place: Seats, top_k: int) -> Tensor:
        context.place, context.top_k = place, top_k
        return _taken(x, place.slot_T // top_k, place.valid_T)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        parts = _taken(gradient, context.place.row_S, context.place.filled_S)
        return parts.view(-1, context.top_k, *parts.shape[1:]).sum(dim=1), None, None


class _Leave(Function):
    """Rows (T, ...) back to the slots that they came from (S, ...)."""

    @staticmethod
    def forward(context: Any, x: Tensor, place: Seats) -> Tensor:
        context.place = place
        return _taken(x, place.row_S, place.filled_S)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _taken(gradient, context.place.slot_T, context.place.valid_T), None


def _patches(x_NHWC: Tensor, stride: int) -> Tensor:
    """Every 3x3 neighbourhood, (N, H', W', 3, 3, C) contiguous; zeros around the image."""
    padded = F.pad(x_NHWC, (0, 0, 1, 1, 1, 1))
    count, height, width, channels = padded.shape
    image, row, pixel, channel = padded.stride()
    size = (count, (height - 3) // stride + 1, (width - 3) // stride + 1, 3, 3, channels)
    return padded.as_strided(size, (image, row * stride, pixel * stride, row, pixel, channel)).contiguous()


class _Convolution(Function):
    """3x3 convolution of each expert's rows (E, R, H, W, C) with its weights (E, O, 3, 3, C); zeros around the image.

    The gradient to the input is itself a convolution over patches where the stride is 1: summed within the matrix
    product. Otherwise the patches' gradients are added up, in float32 at least.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        patches = _patches(x.flatten(0, 1), stride)
        flat_ENP = patches.view(len(x), -1, 9 * x.shape[-1])
        context.save_for_backward(flat_ENP, weight)
        context.shape, context.stride = x.shape, stride
        y = flat_ENP.bmm(weight.flatten(2).transpose(1, 2))
        return y.view(*x.shape[:2], *patches.shape[1:3], -1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        flat_ENP, weight = context.saved_tensors
        gradient = gradient.contiguous()
        flat_ENO = gradient.flatten(1, 3)
        of_weight = flat_ENO.transpose(1, 2).bmm(flat_ENP).view_as(weight)
        if context.stride == 1:
            turned = weight.flip(2, 3).permute(0, 2, 3, 1, 4).flatten(1, 3)  # (E, 3 * 3 * O, C)
            around = _patches(gradient.flatten(0, 1), 1).view(len(weight), -1, turned.shape[1])
            return around.bmm(turned).view(context.shape), of_weight, None
        of_patches = flat_ENO.bmm(weight.flatten(2)).view(*gradient.shape[:4], 3, 3, -1)
        return _Convolution._added(of_patches.flatten(0, 1), context).view(context.shape), of_weight, None

    @staticmethod
    def _added(of_patches: Tensor, context: Any) -> Tensor:
        _, _, height, width, channels = context.shape
        count, rows, columns = of_patches.shape[:3]
        dtype = torch.promote_types(of_patches.dtype, torch.float32)
        padded = of_patches.new_zeros((count, height + 2, width + 2, channels), dtype=dtype)
        for i in range(3):
            for j in range(3):
                reach = slice(i, i + context.stride * (rows - 1) + 1, context.stride)
                across = slice(j, j + context.stride * (columns - 1) + 1, context.stride)
                padded[:, reach, across].add_(of_patches[:, :, :, i, j])
        return padded[:, 1:-1, 1:-1].to(of_patches.dtype)


class _MaskedNorm(Function):
    """Batch norm of each expert's images: batch statistics for experts in `own_E`, running statistics for the rest.

    x is (E, R, H, W, C) with zeros in rows without images, and so is the result. Computed in float32 at least.
    Returns also mean and unbiased variance (E, C) of the images, for the running statistics.
    """

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        scale_EC: Tensor,
        shift_EC: Tensor,
        running_mean_EC: Tensor,
        running_var_EC: Tensor,
        valid_ER: Tensor,
        count_E: Tensor,
        own_E: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype, pixels = torch.promote_types(x.dtype, torch.float32), x.shape[2] * x.shape[3]
        valid, n_E1 = _rowwise(valid_ER.to(dtype)), (count_E * pixels).unsqueeze(1).to(dtype)
        own_E1, several_E1 = own_E.unsqueeze(1), n_E1.clamp_min(1)
        batch_mean_EC = x.sum(dim=(1, 2, 3), dtype=dtype) / several_E1
        mean_EC = torch.where(own_E1, batch_mean_EC, running_mean_EC.to(dtype))
        centred = torch.addcmul(x, valid, _channelwise(mean_EC), value=-1)
        square_EC = torch.linalg.vector_norm(centred, dim=(1, 2, 3)).square()
        rstd_EC = (torch.where(own_E1, square_EC / several_E1, running_var_EC.to(dtype)) + eps).rsqrt()
        y = torch.empty_like(x)  # half precision is converted on the way: no pass of its own
        torch.addcmul(valid * _channelwise(shift_EC), centred, _channelwise(rstd_EC * scale_EC), out=y)
        context.save_for_backward(x, scale_EC, mean_EC, rstd_EC, valid, n_E1, own_E1)
        unbiased_EC = square_EC / (n_E1 - 1).clamp_min(1)
        context.mark_non_differentiable(batch_mean_EC, unbiased_EC)
        return y, batch_mean_EC, unbiased_EC

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor, *_unused: Tensor) -> tuple[Tensor | None, ...]:
        x, scale_EC, mean_EC, rstd_EC, valid, n_E1, own_E1 = context.saved_tensors
        normal = torch.addcmul(x, valid, _channelwise(mean_EC), value=-1).mul_(_channelwise(rstd_EC))
        shift_EC = gradient.sum(dim=(1, 2, 3), dtype=mean_EC.dtype)
        change_EC = (gradient * normal).sum(dim=(1, 2, 3))
        # the statistics depend on the images too, where they are the batch's
        part_E1 = own_E1 / n_E1.clamp_min(1)
        result = torch.addcmul(gradient, normal, _channelwise(change_EC * part_E1), value=-1)
        result = result.addcmul_(valid, _channelwise(shift_EC * part_E1), value=-1)
        of_x = torch.mul(result, _channelwise(scale_EC * rstd_EC), out=torch.empty_like(x))
        return of_x, change_EC, shift_EC, None, None, None, None, None, None


def _rowwise(x_ER: Tensor) -> Tensor:
    return x_ER[:, :, None, None, None]


def _channelwise(x_EC: Tensor) -> Tensor:
    return x_EC[:, None, None, None, :]
