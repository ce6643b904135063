"""Two augmented views of a batch, on the device that the batch is on (Appendix A.1).

Random resized crop, horizontal flip, colour jitter, grayscale, Gaussian blur, normalisation: the distributions are
those of torchvision's per-image transforms, each image with its own parameters. Parameters are drawn on the CPU
from (seed, epoch, view, image index) alone, so a run can stop and go on anywhere and see the same views.

Axes: B images, C = 3 channels, S image side, K blur taps, R rows chosen from B.
"""

import itertools
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from moe.config import AugmentConfig
from moe.rng import Stream, key, uniform

_TRIES = 10  # torchvision's RandomResizedCrop gives up after as many
_ORDERS = torch.tensor(list(itertools.permutations(range(4))))
_GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, as in torchvision


@dataclass(frozen=True)
class ViewParameters:
    """What happens to each image of a batch; CPU tensors.

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
        order_B4=_ORDERS[(order * len(_ORDERS)).long()],
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


def apply(x_BCSS: Tensor, parameters: ViewParameters) -> Tensor:
    """One view of a batch of float images in 0..1; same shape, same scale."""
    x = _crop_and_flip(x_BCSS, parameters)
    x = _jitter(x, parameters)
    x = _on_rows(x, parameters.gray_B, lambda rows, _: _luma(rows).expand_as(rows))
    return _on_rows(x, parameters.sigma_B > 0, lambda rows, pick: blur(rows, parameters.sigma_B[pick]))


def _on_rows(x_BCSS: Tensor, chosen_B: Tensor, change) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Apply `change(images, rows)` to some images of the batch, in place."""
    rows_R = chosen_B.nonzero().squeeze(1)
    if len(rows_R):
        on_device = rows_R.to(x_BCSS.device, non_blocking=True)
        x_BCSS[on_device] = change(x_BCSS[on_device], rows_R)
    return x_BCSS


def _crop_and_flip(x_BCSS: Tensor, p: ViewParameters) -> Tensor:
    """Bilinear resize of each crop to S x S pixels. Crops are never larger than S, so nothing can alias."""
    size = x_BCSS.shape[-1]
    centre = torch.arange(size, dtype=torch.float32) + 0.5
    across = torch.where(p.flip_B.unsqueeze(1), size - centre, centre)
    column_BS = _source(across, p.left_B, p.width_B, size)
    row_BS = _source(centre, p.top_B, p.height_B, size)
    grid_BSS2 = torch.stack(
        [column_BS.unsqueeze(1).expand(-1, size, -1), row_BS.unsqueeze(2).expand(-1, -1, size)], dim=3
    )
    return F.grid_sample(x_BCSS, grid_BSS2.to(x_BCSS), mode="bilinear", padding_mode="border", align_corners=False)


def _source(centre: Tensor, start_B: Tensor, length_B: Tensor, size: int) -> Tensor:
    """(B, S) source coordinates of output pixel centres, in grid_sample's -1..1, kept inside the crop."""
    start, length = start_B.unsqueeze(1), length_B.unsqueeze(1)
    pixel = start + centre * length / size
    inside = torch.minimum(torch.maximum(pixel, start + 0.5), start + length - 0.5)
    return inside * 2 / size - 1


def _jitter(x_BCSS: Tensor, p: ViewParameters) -> Tensor:
    for place in range(4):
        for number, operation in enumerate(COLOUR_OPERATIONS):
            chosen_B = p.jitter_B & (p.order_B4[:, place] == number)
            x_BCSS = _on_rows(
                x_BCSS,
                chosen_B,
                lambda rows, pick, f=operation, n=number: f(rows, p.factor_B4[pick, n].to(rows).view(-1, 1, 1, 1)),
            )
    return x_BCSS


def _luma(x_BCSS: Tensor) -> Tensor:
    red, green, blue = x_BCSS.unbind(1)
    return (_GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue).unsqueeze(1)


def adjust_brightness(x_BCSS: Tensor, factor_B: Tensor) -> Tensor:
    """Scale towards black (factor 0) or beyond the original (above 1); clipped to 0..1."""
    return (x_BCSS * factor_B).clamp_(0, 1)


def adjust_contrast(x_BCSS: Tensor, factor_B: Tensor) -> Tensor:
    """Scale around each image's mean luma; clipped to 0..1."""
    return torch.lerp(_luma(x_BCSS).mean(dim=(2, 3), keepdim=True).expand_as(x_BCSS), x_BCSS, factor_B).clamp_(0, 1)


def adjust_saturation(x_BCSS: Tensor, factor_B: Tensor) -> Tensor:
    """Scale around each pixel's luma; clipped to 0..1."""
    return torch.lerp(_luma(x_BCSS).expand_as(x_BCSS), x_BCSS, factor_B).clamp_(0, 1)


def adjust_hue(x_BCSS: Tensor, turns_B: Tensor) -> Tensor:
    """Rotate the hue of HSV by a fraction of the circle, keeping saturation and value."""
    value, _ = x_BCSS.max(dim=1, keepdim=True)
    chroma = value - x_BCSS.amin(dim=1, keepdim=True)
    red, green, blue = x_BCSS.chunk(3, dim=1)
    safe = chroma.clamp_min(1e-12)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    shifted = sextant + 6 * turns_B
    # each channel as a trapezium of the hue angle: value - chroma * clamp(min(k, 4 - k), 0, 1)
    offset = torch.tensor([5.0, 3.0, 1.0], device=x_BCSS.device).view(1, 3, 1, 1)
    k = (offset + shifted) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


COLOUR_OPERATIONS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def blur_taps(size: int) -> int:
    """Taps of the blur kernel: SimCLR's tenth of the image side, odd, at least 3."""
    return max(3, 2 * (size // 10 // 2) + 1)


def blur(x_RCSS: Tensor, sigma_R: Tensor) -> Tensor:
    """Separable Gaussian blur, one sigma (pixels) an image, reflected borders."""
    taps = blur_taps(x_RCSS.shape[-1])
    half = taps // 2
    offset_K = torch.arange(-half, half + 1, dtype=torch.float32)
    weight_RK = torch.exp(-0.5 * (offset_K / sigma_R.unsqueeze(1)).square())
    weight_KR = (weight_RK / weight_RK.sum(dim=1, keepdim=True)).T.to(x_RCSS)
    for axis in (2, 3):
        pad = (half, half, 0, 0) if axis == 3 else (0, 0, half, half)  # noqa: PLR2004
        padded = F.pad(x_RCSS, pad, mode="reflect")
        length = x_RCSS.shape[axis]
        x_RCSS = torch.stack(
            [padded.narrow(axis, k, length) * weight_KR[k].view(-1, 1, 1, 1) for k in range(taps)]
        ).sum(dim=0)
    return x_RCSS


def normalise(x_BCSS: Tensor, mean: tuple[float, ...], sd: tuple[float, ...]) -> Tensor:
    """Subtract the dataset's channel means and divide by its channel standard deviations (scale 0..1)."""
    shape = (1, 3, 1, 1)
    mean_C, sd_C = (torch.tensor(values, device=x_BCSS.device).view(shape) for values in (mean, sd))
    return (x_BCSS - mean_C) / sd_C.clamp_min(1e-6)


def as_float(images_BCSS: Tensor) -> Tensor:
    """uint8 images to float32 in 0..1."""
    return images_BCSS.float() / 255


def two_views(
    config: AugmentConfig, images_BCSS: Tensor, index_B: Tensor, *, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Two views in 0..1 of uint8 images (B, 3, S, S), not yet normalised.

    Args:
        config: what is drawn.
        images_BCSS: uint8, on any device; the views are made there.
        index_B: each image's place in its dataset.
        seed: the run's seed.
        epoch: every epoch draws anew.
    """
    size, count = images_BCSS.shape[-1], len(images_BCSS)
    drawn = [draw(config, size, key(seed, epoch, view), index_B) for view in (Stream.VIEW_A, Stream.VIEW_B)]
    # one pass over both: half the kernel launches on a GPU
    both = ViewParameters(
        *(torch.cat([getattr(view, field.name) for view in drawn]) for field in fields(ViewParameters))
    )
    views = apply(as_float(images_BCSS).repeat(2, 1, 1, 1), both)
    return views[:count], views[count:]
