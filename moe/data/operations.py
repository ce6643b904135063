"""The operations that make a view of an image, each on a batch whose images have their own parameters.

Axes: B images, C = 3 channels, S image side, K blur taps.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, as in torchvision


def crop_and_flip(
    x_BCSS: Tensor, top_B: Tensor, left_B: Tensor, height_B: Tensor, width_B: Tensor, flip_B: Tensor
) -> Tensor:
    """Bilinear resize of each crop to S x S pixels. Crops are never larger than S, so nothing can alias."""
    size = x_BCSS.shape[-1]
    centre = torch.arange(size, dtype=torch.float32, device=top_B.device) + 0.5
    across = torch.where(flip_B.unsqueeze(1), size - centre, centre)
    column_BS = _source(across, left_B, width_B, size)
    row_BS = _source(centre, top_B, height_B, size)
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


def luma(x_BCSS: Tensor) -> Tensor:
    """Brightness of each pixel, (B, 1, S, S)."""
    red, green, blue = x_BCSS.unbind(1)
    return (_GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue).unsqueeze(1)


def adjust_brightness(x_BCSS: Tensor, factor_B: Tensor) -> Tensor:
    """Scale towards black (factor 0) or beyond the original (above 1); clipped to 0..1."""
    return (x_BCSS * factor_B).clamp_(0, 1)


def adjust_contrast(x_BCSS: Tensor, factor_B: Tensor) -> Tensor:
    """Scale around each image's mean luma; clipped to 0..1."""
    return torch.lerp(luma(x_BCSS).mean(dim=(2, 3), keepdim=True).expand_as(x_BCSS), x_BCSS, factor_B).clamp_(0, 1)


def adjust_saturation(x_BCSS: Tensor, factor_B: Tensor) -> Tensor:
    """Scale around each pixel's luma; clipped to 0..1."""
    return torch.lerp(luma(x_BCSS).expand_as(x_BCSS), x_BCSS, factor_B).clamp_(0, 1)


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
    offset = torch.arange(5.0, 0.0, -2.0, device=x_BCSS.device).view(1, 3, 1, 1)  # 5, 3, 1
    k = (offset + shifted) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def blur_taps(size: int) -> int:
    """Taps of the blur kernel: SimCLR's tenth of the image side, odd, at least 3."""
    return max(3, 2 * (size // 10 // 2) + 1)


def _blur_weights(taps: int, sigma_B: Tensor) -> Tensor:
    """(B, K), each row summing to 1."""
    offset_K = torch.arange(taps, dtype=torch.float32, device=sigma_B.device) - taps // 2
    weight_BK = torch.exp(-0.5 * (offset_K / sigma_B.unsqueeze(1)).square())
    return weight_BK / weight_BK.sum(dim=1, keepdim=True)


def blur(x_BCSS: Tensor, sigma_B: Tensor) -> Tensor:
    """Separable Gaussian blur, one sigma (pixels) an image, reflected borders."""
    taps = blur_taps(x_BCSS.shape[-1])
    half = taps // 2
    weight_KB = _blur_weights(taps, sigma_B).T.to(x_BCSS)
    for axis in (2, 3):
        pad = (half, half, 0, 0) if axis == 3 else (0, 0, half, half)
        padded = F.pad(x_BCSS, pad, mode="reflect")
        length = x_BCSS.shape[axis]
        x_BCSS = torch.stack(
            [padded.narrow(axis, k, length) * weight_KB[k].view(-1, 1, 1, 1) for k in range(taps)]
        ).sum(dim=0)
    return x_BCSS


def blur_at_once(x_BCSS: Tensor, sigma_B: Tensor) -> Tensor:
    """`blur` as two matrix products an image, up to rounding: a kernel or two on a GPU instead of one a tap."""
    count, channels, size, _ = x_BCSS.shape
    weight_BK = _blur_weights(blur_taps(size), sigma_B).to(x_BCSS)
    band_BSS = (weight_BK @ _bands(size, x_BCSS.device).to(x_BCSS)).view(count, size, size).transpose(1, 2)
    for _ in range(2):  # along rows, then, turned, along columns; turned back the second time
        x_BCSS = x_BCSS.reshape(count, -1, size).bmm(band_BSS).view(count, channels, size, size).transpose(2, 3)
    return x_BCSS


@lru_cache(maxsize=8)
def _bands(size: int, device: torch.device) -> Tensor:
    """(K, S * S) float32: for each tap the matrix that picks its pixel for every pixel, reflected at the borders."""
    taps = blur_taps(size)
    with torch.inference_mode(mode=False):
        pixel_KS = torch.arange(size) + torch.arange(taps).view(-1, 1) - taps // 2
        mirrored_KS = (size - 1 - (size - 1 - pixel_KS.abs()).abs()).unsqueeze(2)
        return torch.zeros(taps, size, size).scatter_(2, mirrored_KS, 1.0).flatten(1).to(device)
