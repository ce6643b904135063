"""Two augmented views of a batch, on the device that the batch is on (Appendix A.1).

Random resized crop, horizontal flip, colour jitter, grayscale, Gaussian blur, normalisation: the distributions are
those of torchvision's per-image transforms, each image with its own parameters, see `moe.data.draw`. On the CPU an
operation computes the images that were drawn for it; elsewhere it computes all and keeps the result where it was drawn,
so that shapes are fixed and nothing waits for the device. The views are the same.

Axes: B images, C = 3 channels, S image side, R rows chosen from B.
"""

from functools import lru_cache

import torch
from torch import Tensor

from moe.config import AugmentConfig
from moe.data.draw import ViewParameters, draw_views
from moe.data.operations import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    blur,
    blur_at_once,
    crop_and_flip,
    luma,
)
from moe.rng import to_device

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
COLOUR_OPERATIONS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def apply(x_BCSS: Tensor, parameters: ViewParameters) -> Tensor:
    """One view of a batch of float images in 0..1; same shape, same scale. Parameters are where the images are."""
    with torch.autocast(x_BCSS.device.type, enabled=False):
        return (apply_by_rows if x_BCSS.device.type == "cpu" else apply_to_all)(x_BCSS, parameters)


def apply_by_rows(x_BCSS: Tensor, p: ViewParameters) -> Tensor:
    """`apply`, each operation on the images that were drawn for it."""
    x = crop_and_flip(x_BCSS, p.top_B, p.left_B, p.height_B, p.width_B, p.flip_B)
    for place in range(4):
        for number, operation in enumerate(COLOUR_OPERATIONS):
            chosen_B = p.jitter_B & (p.order_B4[:, place] == number)
            x = _on_rows(x, chosen_B, lambda rows, pick, f=operation, n=number: f(rows, _each(p.factor_B4[pick, n])))
    x = _on_rows(x, p.gray_B, lambda rows, _: luma(rows).expand_as(rows))
    return _on_rows(x, p.sigma_B > 0, lambda rows, pick: blur(rows, p.sigma_B[pick]))


def _on_rows(x_BCSS: Tensor, chosen_B: Tensor, change) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Apply `change(images, rows)` to some images of the batch, in place."""
    rows_R = chosen_B.nonzero().squeeze(1)
    if len(rows_R):
        x_BCSS[rows_R] = change(x_BCSS[rows_R], rows_R)
    return x_BCSS


def apply_to_all(x_BCSS: Tensor, p: ViewParameters) -> Tensor:
    """`apply` with fixed shapes: each operation on all images, kept where it was drawn.

    Of the four colour operations three mix an image with a darker or greyer one. Hue, the dearest, comes once, with the
    mixing operations that were drawn before it and after it on either side.
    """
    x = crop_and_flip(x_BCSS, p.top_B, p.left_B, p.height_B, p.width_B, p.flip_B)
    hue_B = (p.order_B4 == HUE).long().argmax(dim=1)
    for place in (0, 1, 2):
        x = _mixed(x, p, place, p.jitter_B & (hue_B > place))
    x = torch.where(_each(p.jitter_B), adjust_hue(x, _each(p.factor_B4[:, HUE])), x)
    for place in (1, 2, 3):
        x = _mixed(x, p, place, p.jitter_B & (hue_B < place))
    x = torch.where(_each(p.gray_B), luma(x), x)
    blurred_B = p.sigma_B > 0
    return torch.where(_each(blurred_B), blur_at_once(x, torch.where(blurred_B, p.sigma_B, 1.0)), x)


def _mixed(x_BCSS: Tensor, p: ViewParameters, place: int, chosen_B: Tensor) -> Tensor:
    """Whichever of brightness, contrast and saturation has its place in the order, for the chosen images."""
    number_B1 = p.order_B4[:, place].unsqueeze(1)
    factor = _each(p.factor_B4.gather(1, number_B1))
    grey = luma(x_BCSS)
    other = torch.where(_each(number_B1 == CONTRAST), grey.mean(dim=(2, 3), keepdim=True), grey)
    mixed = torch.lerp(other.expand_as(x_BCSS), x_BCSS, factor)
    changed = torch.where(_each(number_B1 == BRIGHTNESS), x_BCSS * factor, mixed).clamp_(0, 1)
    return torch.where(_each(chosen_B), changed, x_BCSS)


def _each(values_B: Tensor) -> Tensor:
    """A value for each image, to be combined with its pixels."""
    return values_B.view(-1, 1, 1, 1)


def normalise(x_BCSS: Tensor, mean: tuple[float, ...], sd: tuple[float, ...]) -> Tensor:
    """Subtract the dataset's channel means and divide by its channel standard deviations (scale 0..1)."""
    mean_C, sd_C = (_constant(tuple(values), x_BCSS.device) for values in (mean, sd))
    return (x_BCSS - mean_C) / sd_C.clamp_min(1e-6)


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A value for each channel, copied to the device once: a copy waits for it."""
    with torch.inference_mode(mode=False):
        return torch.tensor(values, device=device).view(1, -1, 1, 1)


def as_float(images_BCSS: Tensor) -> Tensor:
    """uint8 images to float32 in 0..1."""
    return images_BCSS.float() / 255


def two_views(
    config: AugmentConfig,
    images_BCSS: Tensor,
    index_B: Tensor,
    *,
    seed: int,
    epoch: int,
    drawn: ViewParameters | None = None,
) -> tuple[Tensor, Tensor]:
    """Two views in 0..1 of uint8 images (B, 3, S, S), not yet normalised.

    Args:
        config: what is drawn.
        images_BCSS: uint8, on any device; the views are made there.
        index_B: each image's place in its dataset.
        seed: the run's seed.
        epoch: every epoch draws anew.
        drawn: the parameters, 2B rows on the images' device, where they have been drawn before.
    """
    size, count = images_BCSS.shape[-1], len(images_BCSS)
    if drawn is None:
        on_cpu = draw_views(config, size, index_B.cpu(), seed=seed, epoch=epoch)
        drawn = ViewParameters.unpacked(to_device(on_cpu.packed(), images_BCSS.device))
    # one pass over both: half the kernel launches on a GPU
    views = apply(as_float(images_BCSS).repeat(2, 1, 1, 1), drawn)
    return views[:count], views[count:]
