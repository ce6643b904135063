"""What happens to each view of an image, drawn from (seed, epoch, view, image index) alone (Appendix A.1).

A run can stop and go on anywhere and see the same views. On a GPU a whole epoch's parameters are drawn there at once,
and a step picks its rows: nothing is drawn on the CPU or copied from there but the places of the images.

Axes: B images, N images of a dataset, V = 2 views, E experts, Q numbers that make up an image's parameters.
"""

import itertools
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from moe.config import AugmentConfig
from moe.rng import Stream, key, normal, to_device, uniform

_TRIES = 10  # torchvision's RandomResizedCrop gives up after as many
_ORDERS = torch.tensor(list(itertools.permutations(range(4))))
_CHUNK = 2**15  # images drawn at a time, for the sake of memory


@dataclass(frozen=True)
class ViewParameters:
    """What happens to each image of a batch; tensors on one device.

    Attributes:
        top_B, left_B, height_B, width_B: crop in pixels, float32 whole numbers.
        flip_B: bool.
        jitter_B: bool, whether the colour jitter applies.
        order_B4: int64, which of brightness, contrast, saturation, hue comes first, second, ...
        factor_B4: float32, factors of brightness, contrast, saturation; hue shift in turns.
        gray_B: bool.
        sigma_B: float32, blur in pixels; 0 for none.
    """

    top_B: Tensor
    left_B: Tensor
    height_B: Tensor
    width_B: Tensor
    flip_B: Tensor
    jitter_B: Tensor
    order_B4: Tensor
    factor_B4: Tensor
    gray_B: Tensor
    sigma_B: Tensor

    def packed(self) -> Tensor:
        """All in one tensor, (B, Q) float32, to be copied or indexed at once."""
        columns = (getattr(self, field.name) for field in fields(self))
        return torch.cat([column.view(len(column), -1).float() for column in columns], dim=1)

    @staticmethod
    def unpacked(packed_BQ: Tensor) -> "ViewParameters":
        """The parameters that `packed` put together, on the device of the whole."""
        top, left, height, width, flip, jitter, *order, f0, f1, f2, f3, gray, sigma = packed_BQ.unbind(dim=1)
        return ViewParameters(
            top, left, height, width,
            flip_B=flip > 0,
            jitter_B=jitter > 0,
            order_B4=torch.stack(order, dim=1).long(),
            factor_B4=torch.stack([f0, f1, f2, f3], dim=1),
            gray_B=gray > 0,
            sigma_B=sigma,
        )  # fmt: skip


def draw(config: AugmentConfig, size: int, stream: int, index_B: Tensor) -> ViewParameters:
    """Parameters for images of `size` pixels; row b depends on (stream, index_B[b]) alone."""
    u = uniform(stream, index_B, 2 * _TRIES + 12)
    crop_B4 = _crop(config, size, u[:, : 2 * _TRIES], u[:, 2 * _TRIES : 2 * _TRIES + 2])
    flip, jitter, order, *factors, gray, blur, sigma = u[:, 2 * _TRIES + 2 :].unbind(1)
    strengths = (config.brightness, config.contrast, config.saturation)
    scales = [1 + strength * (2 * f - 1) for strength, f in zip(strengths, factors[:3], strict=True)]
    low, high = config.blur_sigma
    sigma_B = torch.where(blur < config.blur, low + (high - low) * sigma, 0.0)
    top, left, height, width = crop_B4.float().unbind(1)
    return ViewParameters(
        top, left, height, width,
        flip_B=flip < config.flip,
        jitter_B=jitter < config.jitter,
        order_B4=_ORDERS.to(u.device)[(order * len(_ORDERS)).long()],
        factor_B4=torch.stack([*scales, config.hue * (2 * factors[3] - 1)], dim=1).float(),
        gray_B=gray < config.grayscale,
        sigma_B=sigma_B.float(),
    )  # fmt: skip


def _crop(config: AugmentConfig, size: int, shape_u: Tensor, place_u: Tensor) -> Tensor:
    """(B, 4) top, left, height, width: the first of ten candidates that fits, else the whole image.

    Area is uniform in `crop_scale`, aspect ratio log-uniform in `crop_ratio`. When no candidate fits, torchvision
    takes the largest central crop of an allowed ratio: for square images and ratios around 1, all of it.
    """
    low, high = config.crop_scale
    area_BT = size * size * (low + (high - low) * shape_u[:, :_TRIES])
    ratio_low, ratio_high = torch.tensor(config.crop_ratio, dtype=torch.float64).log()
    ratio_BT = torch.exp(ratio_low + (ratio_high - ratio_low) * shape_u[:, _TRIES:])
    width_BT = (area_BT * ratio_BT).sqrt().round()
    height_BT = (area_BT / ratio_BT).sqrt().round()
    fits_BT = (width_BT > 0) & (width_BT <= size) & (height_BT > 0) & (height_BT <= size)
    first_B1 = fits_BT.long().argmax(dim=1, keepdim=True)
    width, height = width_BT.gather(1, first_B1), height_BT.gather(1, first_B1)
    none_B1 = ~fits_BT.any(dim=1, keepdim=True)
    fallback_width, fallback_height = _fallback(config, size)
    width = torch.where(none_B1, fallback_width, width)
    height = torch.where(none_B1, fallback_height, height)
    room = torch.cat([size - height, size - width], dim=1)
    place = torch.where(none_B1, (room / 2).floor(), (place_u * (room + 1)).floor())
    return torch.cat([place, height, width], dim=1)


def _fallback(config: AugmentConfig, size: int) -> tuple[float, float]:
    """Width and height of the largest crop of a square image that keeps to `crop_ratio`."""
    low, high = config.crop_ratio
    if low > 1:
        return float(size), float(round(size / low))
    if high < 1:
        return float(round(size * high)), float(size)
    return float(size), float(size)


def draw_views(config: AugmentConfig, size: int, index_B: Tensor, *, seed: int, epoch: int) -> ViewParameters:
    """Parameters of both views of images of `size` pixels: 2B rows, all first views first; on the device of index_B."""
    views = [draw(config, size, key(seed, epoch, view), index_B) for view in (Stream.VIEW_A, Stream.VIEW_B)]
    return ViewParameters(*(torch.cat([getattr(v, field.name) for v in views]) for field in fields(ViewParameters)))


def draw_noise(experts: int, index_B: Tensor, *, seed: int, epoch: int) -> Tensor:
    """The gate's noise, (2B, E) float32 standard normal: a function of (seed, epoch, view, image)."""
    return torch.cat([normal(key(seed, epoch, Stream.NOISE, view), index_B, experts) for view in (0, 1)])


class Draws:
    """A run's random numbers on the device that needs them, equal to those drawn on the CPU up to rounding.

    A step's are drawn on the CPU for the step; for a GPU a table of the epoch's is drawn there when a step of another
    epoch asks. The table keeps its memory from epoch to epoch.

    Args:
        config: what is drawn for views.
        experts: numbers of gate noise an image and view.
        seed: the run's.
    """

    def __init__(self, config: AugmentConfig, experts: int, seed: int) -> None:
        self.config, self.experts, self.seed = config, experts, seed
        self._held: tuple[int, int] | None = None
        self._table_NVQ = torch.empty(0)

    def __call__(
        self, index_B: Tensor, *, size: int, epoch: int, device: torch.device
    ) -> tuple[ViewParameters, Tensor]:
        """Parameters of both views, and the gate's noise, (2B, ...) each.

        Args:
            index_B: each image's place in its dataset, on the CPU.
            size: pixels a side of the images.
            epoch: every epoch draws anew.
            device: where they are needed.
        """
        if device.type != "cuda":  # other accelerators lack float64
            views = draw_views(self.config, size, index_B, seed=self.seed, epoch=epoch)
            noise = draw_noise(self.experts, index_B, seed=self.seed, epoch=epoch)
            return (views if device.type == "cpu" else ViewParameters.unpacked(views.packed().to(device))), noise.to(
                device
            )
        self.prepare(_largest(index_B) + 1, size=size, epoch=epoch, device=device)
        return self.rows(to_device(index_B, device))

    def prepare(self, count: int, *, size: int, epoch: int, device: torch.device) -> None:
        """Have the table of an epoch ready for at least `count` images."""
        table, count = self._table_NVQ, max(count, len(self._table_NVQ))
        if table.device == device and len(table) == count and self._held == (epoch, size):
            return
        if table.device != device or len(table) != count:
            self._table_NVQ = torch.empty((0,), device=device)
        for start in range(0, count, _CHUNK):
            index_B = torch.arange(start, min(start + _CHUNK, count), device=device)
            views = draw_views(self.config, size, index_B, seed=self.seed, epoch=epoch).packed()
            noise = draw_noise(self.experts, index_B, seed=self.seed, epoch=epoch)
            both = torch.cat([views, noise], dim=1).view(2, len(index_B), -1).transpose(0, 1)
            if not len(self._table_NVQ):
                self._table_NVQ = both.new_empty((count, *both.shape[1:]))
            self._table_NVQ[start : start + len(index_B)] = both
        self._held = epoch, size

    def rows(self, index_B: Tensor) -> tuple[ViewParameters, Tensor]:
        """What the table holds for images whose places are on the device."""
        both_WQ = self._table_NVQ.index_select(0, index_B).transpose(0, 1).flatten(0, 1)
        return ViewParameters.unpacked(both_WQ[:, : -self.experts]), both_WQ[:, -self.experts :]


def _largest(index_B: Tensor) -> int:
    """The largest of some places, which are on the CPU: no device is asked."""
    return int(index_B.numpy().max())
