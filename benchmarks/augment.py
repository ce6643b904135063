"""Two views of a batch: ours in batches against torchvision's transforms image by image.

    python benchmarks/augment.py [--images 256] [--size 96] [--repeats 5]

Both use one process and the same number of threads, and alternate, so that a drifting machine slows both. Agreement:
every operation equals torchvision's on equal parameters (tests/moe/data/test_augment.py); here the means and standard
deviations of the views' pixels are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from moe.config import AugmentConfig
from moe.data.augment import as_float, two_views
from moe.data.operations import blur_taps


def torchvision_pipeline(config: AugmentConfig, size: int) -> v2.Compose:
    """The literal recipe: one image at a time, each operation drawing its own parameters."""
    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    smooth = v2.GaussianBlur(blur_taps(size), config.blur_sigma)
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, config.crop_scale, config.crop_ratio, antialias=True),
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomApply([jitter], config.jitter),
            v2.RandomGrayscale(config.grayscale),
            v2.RandomApply([smooth], config.blur),
        ]
    )


def timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds and result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def main() -> None:
    """Time both in turn and print medians, ratio and agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = AugmentConfig()
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(options.images, 3, 12, 12), options.size, mode="bilinear")
    images = (smooth * 255).to(torch.uint8)
    index = torch.arange(options.images)
    literal = torchvision_pipeline(config, options.size)
    epoch = iter(range(10**6))

    def ours() -> Tensor:
        return torch.cat(two_views(config, images, index, seed=0, epoch=next(epoch)))

    def theirs() -> Tensor:
        return torch.stack([literal(image) for _ in range(2) for image in as_float(images)])

    ours(), theirs()
    pairs = [(timed(ours), timed(theirs)) for _ in range(options.repeats)]
    views = 2 * options.images
    for name, side in (("ours, in batches", 0), ("torchvision, image by image", 1)):
        seconds = [pair[side][0] for pair in pairs]
        pixels = torch.stack([pair[side][1] for pair in pairs])
        speed = views / statistics.median(seconds)
        spread = f"{views / max(seconds):.0f} to {views / min(seconds):.0f}"
        print(f"{name:28} {speed:8.0f} views/s (median; {spread}); pixels {pixels.mean():.3f} +- {pixels.std():.3f}")
    ratios = [pair[1][0] / pair[0][0] for pair in pairs]
    print(f"ratio: {statistics.median(ratios):.1f} (pairs {min(ratios):.1f} to {max(ratios):.1f})")
    difference = torch.stack([a[1].mean() - b[1].mean() for a, b in pairs]).mean().abs().item()
    if difference > 0.01:
        raise SystemExit(f"the two pipelines disagree: mean pixel differs by {difference:.3f}")
    print(f"agreement: mean pixel differs by {difference:.4f} of 1; {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
