"""Views against torchvision: the same pictures from the same parameters, the same parameters on average."""

import itertools
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as tv

from moe.config import AugmentConfig
from moe.data import augment
from moe.data.augment import two_views
from moe.data.draw import ViewParameters, draw
from moe.data.operations import blur, blur_taps
from moe.rng import key

SIZE = 32
DRAWS = 3000
PAPER = AugmentConfig()
NOTHING = AugmentConfig(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, grayscale=0, blur=0)


def pictures(count: int = 8, size: int = SIZE, seed: int = 0) -> Tensor:
    """Random colours with some pure, grey, black and white pixels, where hue and saturation are degenerate."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((count, 3, size, size), generator=generator)
    x[:, :, 0, 0], x[:, :, 0, 1] = 0, 1
    x[:, :, 1] = x[:, :1, 1]
    x[:, 0, 2], x[:, 1:, 2] = 1, 0
    x[:, 1, 3] = x[:, 2, 3]
    x[:, 0, 4] = x[:, 1, 4]
    return x


def plain(count: int, size: int = SIZE) -> ViewParameters:
    """Parameters that leave images as they are."""
    zeros = torch.zeros(count)
    side = torch.full((count,), float(size))
    no = torch.zeros(count, dtype=torch.bool)
    return ViewParameters(
        top_B=zeros, left_B=zeros, height_B=side, width_B=side, flip_B=no, jitter_B=no,
        order_B4=torch.arange(4).expand(count, 4), factor_B4=torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(count, 4),
        gray_B=no, sigma_B=zeros,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> ViewParameters:
    return draw(PAPER, 96, key(0, 0, 0), torch.arange(DRAWS))


def agrees_with_rate(chosen: Tensor, rate: float) -> bool:
    return stats.binomtest(int(chosen.sum()), len(chosen), rate).pvalue > 1e-3


class TestPixelsAgainstTorchvision:
    @pytest.mark.parametrize("size", [16, 33, 96])
    def test_crop_and_flip(self, size: int) -> None:
        x = pictures(16, size)
        p = draw(PAPER, size, 5, torch.arange(16))
        p = replace(plain(16, size), **{n: getattr(p, n) for n in ("top_B", "left_B", "height_B", "width_B", "flip_B")})
        assert 0 < p.flip_B.sum() < 16
        view = augment.apply(x, p)
        for number in range(16):
            box = [int(v[number]) for v in (p.top_B, p.left_B, p.height_B, p.width_B)]
            expected = tv.resized_crop(x[number], *box, size=[size, size], antialias=True)
            expected = tv.horizontal_flip(expected) if p.flip_B[number] else expected
            # grid coordinates are float32 between -1 and 1: their rounding grows with the side
            torch.testing.assert_close(view[number], expected, atol=1e-5 if size < 64 else 2e-5, rtol=0)

    @pytest.mark.parametrize("box", [(0, 0, 1, 1), (31, 31, 1, 1), (0, 31, 32, 1), (5, 0, 2, 32), (0, 0, 32, 32)])
    def test_extreme_crops(self, box: tuple[int, int, int, int]) -> None:
        x = pictures(1)
        top, left, height, width = (torch.tensor([float(value)]) for value in box)
        view = augment.apply(x, replace(plain(1), top_B=top, left_B=left, height_B=height, width_B=width))
        expected = tv.resized_crop(x, *box, size=[SIZE, SIZE], antialias=True)
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        ("ours", "theirs", "factors"),
        [
            (augment.adjust_brightness, tv.adjust_brightness, (0.0, 0.6, 1.0, 1.4, 2.0)),
            (augment.adjust_contrast, tv.adjust_contrast, (0.0, 0.6, 1.0, 1.4, 2.0)),
            (augment.adjust_saturation, tv.adjust_saturation, (0.0, 0.6, 1.0, 1.4, 2.0)),
            (augment.adjust_hue, tv.adjust_hue, (-0.5, -0.1, 0.0, 0.07, 0.1, 0.5)),
        ],
        ids=["brightness", "contrast", "saturation", "hue"],
    )
    def test_colour_operation_with_each_images_own_factor(self, ours, theirs, factors: tuple[float, ...]) -> None:
        x = pictures(len(factors))
        changed = ours(x, torch.tensor(factors).view(-1, 1, 1, 1))
        for number, factor in enumerate(factors):
            torch.testing.assert_close(changed[number], theirs(x[number], factor), atol=1e-5, rtol=0)

    def test_grayscale(self) -> None:
        x = pictures(4)
        chosen = torch.tensor([True, False, True, False])
        view = augment.apply(x.clone(), replace(plain(4), gray_B=chosen))
        expected = torch.where(chosen.view(-1, 1, 1, 1), tv.rgb_to_grayscale(x, num_output_channels=3), x)
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("size", [16, 32, 96])
    def test_blur_with_each_images_own_sigma(self, size: int) -> None:
        sigmas = (0.1, 0.5, 1.3, 2.0)
        x = pictures(len(sigmas), size)
        taps = blur_taps(size)
        blurred = blur(x, torch.tensor(sigmas))
        for number, sigma in enumerate(sigmas):
            expected = tv.gaussian_blur(x[number], [taps, taps], [sigma, sigma])
            torch.testing.assert_close(blurred[number], expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(("size", "taps"), [(16, 3), (32, 3), (40, 5), (64, 7), (96, 9), (224, 23)])
    def test_kernel_is_odd_and_a_tenth_of_the_side(self, size: int, taps: int) -> None:
        assert blur_taps(size) == taps

    def test_jitter_in_each_of_the_24_orders(self) -> None:
        orders = list(itertools.permutations(range(4)))
        x = pictures(24, 16)
        factors = draw(PAPER, 16, 8, torch.arange(24)).factor_B4
        p = replace(
            plain(24, 16), order_B4=torch.tensor(orders), factor_B4=factors, jitter_B=torch.ones(24, dtype=torch.bool)
        )
        view = augment.apply(x.clone(), p)
        theirs = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
        for number, order in enumerate(orders):
            expected = x[number]
            for operation in order:
                expected = theirs[operation](expected, factors[number, operation].item())
            torch.testing.assert_close(view[number], expected, atol=3e-5, rtol=0)

    def test_whole_view_in_torchvisions_order(self) -> None:
        x = pictures(24)
        p = draw(PAPER, SIZE, 11, torch.arange(24))
        assert all(0 < int(chosen.sum()) < 24 for chosen in (p.flip_B, p.jitter_B, p.gray_B, p.sigma_B > 0))
        view = augment.apply(x.clone(), p)
        theirs = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
        for number in range(24):
            box = [int(v[number]) for v in (p.top_B, p.left_B, p.height_B, p.width_B)]
            expected = tv.resized_crop(x[number], *box, size=[SIZE, SIZE], antialias=True)
            if p.flip_B[number]:
                expected = tv.horizontal_flip(expected)
            for operation in p.order_B4[number].tolist() if p.jitter_B[number] else []:
                expected = theirs[operation](expected, p.factor_B4[number, operation].item())
            if p.gray_B[number]:
                expected = tv.rgb_to_grayscale(expected, num_output_channels=3)
            if p.sigma_B[number] > 0:
                expected = tv.gaussian_blur(expected, [3, 3], [p.sigma_B[number].item()])
            torch.testing.assert_close(view[number], expected, atol=5e-5, rtol=0)


class TestDistributionsAgainstTorchvision:
    @pytest.mark.parametrize(
        ("scale", "ratio"),
        [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (1 / 3, 3.0)), ((0.05, 0.2), (1.0, 2.0))],
        ids=["default", "many candidates fail", "wide crops"],
    )
    def test_crop(self, scale: tuple[float, float], ratio: tuple[float, float]) -> None:
        size = 96
        p = draw(AugmentConfig(crop_scale=scale, crop_ratio=ratio), size, 21, torch.arange(DRAWS))
        ours = torch.stack([p.top_B, p.left_B, p.height_B, p.width_B], dim=1).numpy()
        torch.manual_seed(0)
        image = torch.empty(3, size, size)
        theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(DRAWS)])
        for what, of in {
            "area fraction": lambda c: c[:, 2] * c[:, 3] / size**2,
            "log aspect ratio": lambda c: np.log(c[:, 3] / c[:, 2]),
            "top": lambda c: c[:, 0],
            "left": lambda c: c[:, 1],
            "relative top": lambda c: c[:, 0] / (size - c[:, 2] + 1),
            "relative left": lambda c: c[:, 1] / (size - c[:, 3] + 1),
        }.items():
            assert stats.ks_2samp(of(ours), of(theirs)).pvalue > 1e-3, what

    def test_crops_are_whole_pixels_inside_the_image(self, drawn: ViewParameters) -> None:
        box = torch.stack([drawn.top_B, drawn.left_B, drawn.height_B, drawn.width_B])
        assert torch.equal(box, box.round())
        assert box[:2].min() == 0
        assert box[2:].min() >= 1
        assert (drawn.top_B + drawn.height_B).max() == 96
        assert (drawn.left_B + drawn.width_B).max() == 96

    def test_rates(self, drawn: ViewParameters) -> None:
        assert agrees_with_rate(drawn.flip_B, 0.5)
        assert agrees_with_rate(drawn.jitter_B, 0.8)
        assert agrees_with_rate(drawn.gray_B, 0.2)
        assert agrees_with_rate(drawn.sigma_B > 0, 0.5)

    @pytest.mark.parametrize("number", range(4), ids=["brightness", "contrast", "saturation", "hue"])
    def test_colour_factors(self, drawn: ViewParameters, number: int) -> None:
        low, high = ((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1))[number]
        ours = drawn.factor_B4[:, number].numpy()
        jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
        torch.manual_seed(0)
        ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        theirs = [ColorJitter.get_params(*ranges)[1 + number] for _ in range(1000)]
        assert low <= ours.min() < ours.max() <= high
        assert stats.kstest(ours, stats.uniform(low, high - low).cdf).pvalue > 1e-3
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3

    def test_blur_widths(self, drawn: ViewParameters) -> None:
        ours = drawn.sigma_B[drawn.sigma_B > 0].numpy()
        blur = v2.GaussianBlur(9, (0.1, 2.0))
        torch.manual_seed(0)
        theirs = [blur.make_params([])["sigma"][0] for _ in range(1000)]
        assert ours.min() >= np.float32(0.1)
        assert ours.max() <= 2.0
        assert stats.kstest(ours, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3

    def test_orders_of_the_colour_operations_are_equally_likely(self, drawn: ViewParameters) -> None:
        orders = list(itertools.permutations(range(4)))
        counts = [int((drawn.order_B4 == torch.tensor(order)).all(dim=1).sum()) for order in orders]
        assert sum(counts) == DRAWS
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_parameters_are_independent_of_each_other(self, drawn: ViewParameters) -> None:
        area = drawn.height_B * drawn.width_B
        aspect = (drawn.width_B / drawn.height_B).log()
        columns = [area, aspect, drawn.flip_B, drawn.jitter_B, drawn.order_B4[:, 0], *drawn.factor_B4.T, drawn.gray_B]
        values = np.stack([column.float().numpy() for column in [*columns, drawn.sigma_B > 0]])
        correlation = np.corrcoef(values) - np.eye(len(values))
        assert np.abs(correlation).max() < 5 / math.sqrt(DRAWS)


class TestRepeatability:
    def test_parameters_of_an_image_do_not_depend_on_the_batch(self) -> None:
        index = torch.tensor([40, 3, 7, 99_999, 0])
        whole = draw(PAPER, 96, 17, index)
        part = draw(PAPER, 96, 17, index[[3, 1]])
        for field in fields(ViewParameters):
            assert torch.equal(getattr(part, field.name), getattr(whole, field.name)[[3, 1]]), field.name

    def test_views_of_an_image_are_the_same_in_any_batch(self) -> None:
        images = (pictures(12) * 255).byte()
        index = torch.arange(100, 112)
        whole = two_views(PAPER, images, index, seed=0, epoch=4)
        order = torch.tensor([9, 0, 11, 4])
        some = two_views(PAPER, images[order], index[order], seed=0, epoch=4)
        for view, again in zip(whole, some, strict=True):
            torch.testing.assert_close(again, view[order], atol=1e-6, rtol=0)

    def test_seed_epoch_view_and_image_all_matter(self) -> None:
        image = (pictures(1) * 255).byte().expand(6, -1, -1, -1)
        seen = []
        for seed, epoch in itertools.product((0, 1), (0, 1)):
            for view in two_views(PAPER, image, torch.arange(6), seed=seed, epoch=epoch):
                seen.extend(view.flatten(1))
        assert len(torch.stack(seen).unique(dim=0)) == 2 * 2 * 2 * 6

    def test_the_same_call_gives_the_same_views_whatever_torchs_seed(self) -> None:
        images, index = (pictures(4) * 255).byte(), torch.arange(4)
        torch.manual_seed(0)
        first = two_views(PAPER, images, index, seed=3, epoch=1)
        torch.manual_seed(1)
        again = two_views(PAPER, images, index, seed=3, epoch=1)
        assert torch.equal(torch.stack(first), torch.stack(again))


class TestEdges:
    @pytest.mark.parametrize(
        ("scale", "ratio"),
        [
            ((0.9, 1.0), (4.0, 5.0)),
            ((0.9, 1.0), (0.2, 0.25)),
            ((0.9, 1.0), (2.5, 2.5)),
            ((0.95, 1.0), (0.7, 0.7)),
            ((1.5, 2.0), (0.75, 1.5)),
        ],
    )
    @pytest.mark.parametrize("size", [33, 96])
    def test_fallback_of_a_crop_that_never_fits(
        self, scale: tuple[float, float], ratio: tuple[float, float], size: int
    ) -> None:
        p = draw(AugmentConfig(crop_scale=scale, crop_ratio=ratio), size, 0, torch.arange(50))
        ours = torch.stack([p.top_B, p.left_B, p.height_B, p.width_B], dim=1)
        expected = RandomResizedCrop.get_params(torch.empty(3, size, size), list(scale), list(ratio))
        assert torch.equal(ours, torch.tensor(expected, dtype=torch.float32).expand(50, 4))

    def test_nothing_to_do_leaves_the_image(self) -> None:
        images = (pictures(5) * 255).byte()
        for view in two_views(NOTHING, images, torch.arange(5), seed=0, epoch=0):
            torch.testing.assert_close(view, images.float() / 255, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("setting", ["flip", "jitter", "grayscale", "blur"])
    @pytest.mark.parametrize("rate", [0.0, 1.0])
    def test_certain_and_impossible(self, setting: str, rate: float) -> None:
        p = draw(PAPER.model_copy(update={setting: rate}), 96, 0, torch.arange(500))
        chosen = {"flip": p.flip_B, "jitter": p.jitter_B, "grayscale": p.gray_B, "blur": p.sigma_B > 0}[setting]
        assert chosen.float().mean() == rate

    @pytest.mark.parametrize(("number", "setting"), [(0, "brightness"), (1, "contrast"), (2, "saturation"), (3, "hue")])
    def test_strength_zero_leaves_the_factor_neutral(self, number: int, setting: str) -> None:
        p = draw(PAPER.model_copy(update={setting: 0.0}), 96, 0, torch.arange(100))
        assert (p.factor_B4[:, number] == (0 if setting == "hue" else 1)).all()

    def test_one_sigma(self) -> None:
        p = draw(PAPER.model_copy(update={"blur": 1.0, "blur_sigma": (0.7, 0.7)}), 96, 0, torch.arange(100))
        assert (p.sigma_B == torch.tensor(0.7)).all()

    def test_values_stay_between_0_and_1_at_the_strongest_settings(self) -> None:
        strongest = AugmentConfig(jitter=1, brightness=1, contrast=1, saturation=1, hue=0.5, blur=1)
        images = (pictures(64, 16) * 255).byte()
        for view in two_views(strongest, images, torch.arange(64), seed=0, epoch=0):
            assert view.isfinite().all()
            assert view.min() >= -1e-6
            assert view.max() <= 1 + 1e-6

    @pytest.mark.parametrize("value", [0, 128, 255])
    def test_uniform_images_stay_finite(self, value: int) -> None:
        images = torch.full((16, 3, 16, 16), value, dtype=torch.uint8)
        for view in two_views(PAPER, images, torch.arange(16), seed=0, epoch=0):
            assert view.isfinite().all()
            assert (view.amax(dim=(1, 2, 3)) - view.amin(dim=(1, 2, 3))).max() < 1e-5


class TestTwoViews:
    @pytest.mark.parametrize(("count", "size"), [(1, 16), (5, 24)])
    def test_form(self, count: int, size: int) -> None:
        images = (pictures(count, size) * 255).byte()
        before = images.clone()
        views = two_views(PAPER, images, torch.arange(count), seed=0, epoch=0)
        assert len(views) == 2
        for view in views:
            assert view.shape == (count, 3, size, size)
            assert view.dtype == torch.float32
        assert torch.equal(images, before)

    def test_as_float(self) -> None:
        x = augment.as_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
        assert x.dtype == torch.float32
        assert x.tolist() == pytest.approx([0, 0.2, 1])

    def test_normalise_gives_each_channel_mean_0_and_sd_1(self) -> None:
        x = pictures(8)
        mean, sd = x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3), correction=0)
        z = augment.normalise(x, tuple(mean.tolist()), tuple(sd.tolist()))
        torch.testing.assert_close(z, tv.normalize(x, mean.tolist(), sd.tolist()), atol=1e-5, rtol=0)
        torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)

    def test_normalise_of_a_constant_channel_is_finite(self) -> None:
        z = augment.normalise(torch.full((1, 3, 4, 4), 0.5), (0.5, 0.5, 0.5), (0.2, 0.0, 0.2))
        assert torch.equal(z, torch.zeros(1, 3, 4, 4))
