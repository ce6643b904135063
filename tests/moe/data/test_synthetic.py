"""The built-in pictures: reproducible, balanced, and described truthfully by their factors.

Measures here are written anew from the pixels, by other means than the module's own.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from moe.data import synthetic
from moe.data.synthetic import CLASSES, FACTORS, ORGANIC, SyntheticImages, generate


@pytest.fixture(scope="module")
def drawn() -> SyntheticImages:
    return generate(600, seed=7)


def column(drawn: SyntheticImages, name: str) -> np.ndarray:
    return drawn.factors_NF[:, FACTORS.index(name)].astype(float)


def of_kind(drawn: SyntheticImages, *names: str) -> np.ndarray:
    return np.isin(drawn.labels_N, [CLASSES.index(name) for name in names])


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.fixture(scope="module")
def rgb(drawn: SyntheticImages) -> np.ndarray:
    return drawn.images_NHWC.astype(np.float32) / 255.0


@pytest.fixture(scope="module")
def grey(rgb: np.ndarray) -> np.ndarray:
    return rgb.mean(axis=-1)


def slopes(grey_NHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes along rows and along columns, both at the corners between pixels (Roberts' cross)."""
    falling = grey_NHW[:, 1:, 1:] - grey_NHW[:, :-1, :-1]
    rising = grey_NHW[:, :-1, 1:] - grey_NHW[:, 1:, :-1]
    return falling + rising, falling - rising


def anisotropy(grey_NHW: np.ndarray) -> np.ndarray:
    """How much slopes prefer one direction, from the structure tensor: 0 not at all, 1 wholly."""
    dx, dy = slopes(grey_NHW)
    xx, yy, xy = (dx * dx).sum((1, 2)), (dy * dy).sum((1, 2)), (dx * dy).sum((1, 2))
    return np.hypot(xx - yy, 2.0 * xy) / (xx + yy)


def orientation_entropy(grey_NHW: np.ndarray) -> np.ndarray:
    """Entropy (nats) of edge orientation, edges weighted by energy."""
    dx, dy = slopes(grey_NHW)
    bins = np.minimum((np.arctan2(dy, dx) % np.pi / np.pi * 15).astype(int), 14)
    weights = dx**2 + dy**2
    shares = np.array([np.bincount(b.ravel(), w.ravel(), 15) for b, w in zip(bins, weights, strict=True)])
    shares /= shares.sum(axis=1, keepdims=True)
    return -(shares * np.log(shares + 1e-12)).sum(axis=1)


class TestReproducible:
    def test_same_arguments_same_pictures(self) -> None:
        first, again = generate(20, seed=3), generate(20, seed=3)
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_shorter_set_is_a_prefix(self) -> None:
        for long, short in zip(generate(23, seed=1), generate(11, seed=1), strict=True):
            np.testing.assert_array_equal(long[:11], short)

    def test_seeds_and_indices_give_different_pictures(self) -> None:
        pictures = np.concatenate([generate(20, size=32, seed=seed).images_NHWC for seed in (0, 1)])
        assert len(np.unique(pictures.reshape(40, -1), axis=0)) == 40

    def test_seed_zero_is_the_default(self) -> None:
        np.testing.assert_array_equal(generate(3).images_NHWC, generate(3, seed=0).images_NHWC)

    def test_same_picture_at_another_resolution(self) -> None:
        fine, coarse = generate(20, size=128, seed=5), generate(20, size=64, seed=5)
        halved = fine.images_NHWC.reshape(20, 64, 2, 64, 2, 3).mean(axis=(2, 4))
        assert np.abs(halved - coarse.images_NHWC).mean() < 3.0  # grey levels of 255
        assert np.abs(fine.factors_NF - coarse.factors_NF).mean() < 0.02


class TestForm:
    def test_shapes_and_types(self) -> None:
        images_NHWC, labels_N, factors_NF = generate(12, size=48)
        assert images_NHWC.shape == (12, 48, 48, 3)
        assert images_NHWC.dtype == np.uint8
        assert labels_N.shape == (12,)
        assert labels_N.dtype == np.int64
        assert factors_NF.shape == (12, len(FACTORS))
        assert factors_NF.dtype == np.float32

    def test_nothing_asked_nothing_drawn(self) -> None:
        assert generate(0).images_NHWC.shape == (0, 64, 64, 3)

    def test_classes_are_balanced(self, drawn: SyntheticImages) -> None:
        np.testing.assert_array_equal(np.bincount(drawn.labels_N), np.full(len(CLASSES), 60))
        assert len(ORGANIC) == len(CLASSES) == 10
        assert sum(ORGANIC) == 5
        assert len(set(FACTORS)) == len(FACTORS)

    @pytest.mark.parametrize("bad", [{"count": -1}, {"count": 1, "seed": -1}, {"count": 1, "size": 31}])
    def test_impossible_requests_are_refused(self, bad: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=r"need count >= 0, seed >= 0 and size >= 32"):
            generate(**bad)

    def test_needs_numpy_alone(self) -> None:
        check = "import sys, moe.data.synthetic; sys.exit(bool({'torch', 'scipy', 'PIL'} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


class TestFactorsAreTrue:
    """Each column against an independent measurement of the pixels."""

    def test_bright(self, drawn: SyntheticImages, grey: np.ndarray) -> None:
        assert agreement(column(drawn, "bright"), grey.mean((1, 2))) > 0.95

    def test_high_contrast(self, drawn: SyntheticImages, grey: np.ndarray) -> None:
        low, high = np.percentile(grey, (10, 90), axis=(1, 2))
        assert agreement(column(drawn, "high contrast"), high - low) > 0.8

    def test_warm_coloured(self, drawn: SyntheticImages, rgb: np.ndarray) -> None:
        red, _, blue = np.moveaxis(rgb.mean((1, 2)), -1, 0)
        assert agreement(column(drawn, "warm-coloured"), red - blue) > 0.75

    @pytest.mark.parametrize(("name", "channel"), [("green", 1), ("blue", 2)])
    def test_hue(self, drawn: SyntheticImages, rgb: np.ndarray, name: str, channel: int) -> None:
        ahead = rgb[..., channel] - np.maximum(rgb[..., channel - 1], rgb[..., channel - 2])
        assert agreement(column(drawn, name), (ahead > 0.05).mean((1, 2))) > 0.75

    def test_colourful(self, drawn: SyntheticImages, rgb: np.ndarray) -> None:
        assert agreement(column(drawn, "colourful"), rgb.std(axis=-1).mean((1, 2))) > 0.95

    def test_fine_grained(self, drawn: SyntheticImages, grey: np.ndarray) -> None:
        grey_NHW = grey
        blocks = grey_NHW.reshape(-1, 16, 4, 16, 4).mean((2, 4))
        lost = 1.0 - blocks.var(axis=(1, 2)) / grey_NHW.var(axis=(1, 2))
        assert agreement(column(drawn, "fine-grained pattern"), np.sqrt(lost)) > 0.7

    def test_vertical(self, drawn: SyntheticImages, grey: np.ndarray) -> None:
        dx, dy = (np.abs(slope).mean((1, 2)) for slope in slopes(grey))
        assert agreement(column(drawn, "vertical"), np.maximum(dx / dy - 1.0, 0.0)) > 0.7

    def test_straight_edged(self, drawn: SyntheticImages, grey: np.ndarray) -> None:
        assert agreement(column(drawn, "straight-edged"), -orientation_entropy(grey)) > 0.7

    def test_repetitive(self, drawn: SyntheticImages, grey: np.ndarray) -> None:
        power = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
        lines = np.abs(np.fft.fftfreq(64, 1 / 64))
        power = power[:, np.hypot(lines[:, None], lines) >= 3.0]
        peaks = np.sort(power, axis=1)[:, -8:].sum(1) / power.sum(1)
        patterned, single = of_kind(drawn, "bricks", "stripes"), of_kind(drawn, "creature", "cloud")
        repetitive = column(drawn, "repetitive")
        assert agreement(repetitive, peaks) > 0.35
        assert np.median(repetitive[patterned]) > 3.0 * np.median(repetitive[single])

    def test_organic_and_geometric(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # The same pictures twice, the second time with wavering lines: all else that was drawn stays.
        def draw(waver: float) -> SyntheticImages:
            recipe = synthetic._make_recipe
            with monkeypatch.context() as patch:
                patch.setattr(synthetic, "_make_recipe", lambda *a: recipe(*a)._replace(waver=waver))
                return generate(60, seed=2)

        straight, wavering = draw(0.0), draw(0.45)
        chosen = of_kind(straight, "boxes", "bricks", "stripes")
        before, after = (
            orientation_entropy(images.images_NHWC[chosen].mean(axis=-1)) for images in (straight, wavering)
        )
        assert (after > before).mean() > 0.95
        assert (column(wavering, "organic") > column(straight, "organic")).all()
        assert (column(wavering, "geometric") < column(straight, "geometric"))[chosen].all()

    @pytest.mark.parametrize("kind", ["tissue", "rings"])
    def test_elongated_and_round(self, drawn: SyntheticImages, grey: np.ndarray, kind: str) -> None:
        # These kinds hold parts of one shape that all point the same way.
        chosen, uneven = of_kind(drawn, kind), anisotropy(grey)
        assert agreement(column(drawn, "elongated")[chosen], uneven[chosen]) > 0.5
        assert agreement(column(drawn, "round")[chosen], uneven[chosen]) < -0.5

    @pytest.mark.parametrize("kind", ["stripes", "tissue", "bricks"])
    def test_many_things(self, drawn: SyntheticImages, grey: np.ndarray, kind: str) -> None:
        chosen = of_kind(drawn, kind)
        edges = np.abs(slopes(grey)).mean((0, 2, 3)) / grey.std(axis=(1, 2))
        assert agreement(column(drawn, "many things")[chosen], edges[chosen]) > 0.5

    def test_large(self, drawn: SyntheticImages, rgb: np.ndarray) -> None:
        # Where the background is plain, the figure is what differs from the frame's usual colour.
        chosen = (column(drawn, "cluttered background") < 0.12) & (column(drawn, "large") < 0.5)
        images = rgb[chosen]
        frame = np.concatenate(
            [images[:, :3].reshape(len(images), -1, 3), images[:, -3:].reshape(len(images), -1, 3)], 1
        )
        apart = np.abs(images - np.median(frame, axis=1)[:, None, None]).max(axis=-1)
        assert agreement(column(drawn, "large")[chosen], (apart > 0.12).mean((1, 2))) > 0.5

    def test_cluttered_background(self, drawn: SyntheticImages, grey: np.ndarray) -> None:
        # These kinds leave the corners bare.
        chosen = of_kind(drawn, "creature", "boxes", "rings", "star")
        corners = grey[chosen].reshape(-1, 4, 16, 4, 16)[:, ::3, :, ::3]
        uneven = corners.std(axis=(2, 4)).mean((1, 2))
        assert agreement(column(drawn, "cluttered background")[chosen], uneven) > 0.45


class TestFactorsAreUseful:
    def test_range(self, drawn: SyntheticImages) -> None:
        assert drawn.factors_NF.min() >= 0.0
        assert drawn.factors_NF.max() <= 1.0
        assert (np.ptp(drawn.factors_NF, axis=0) > 0.6).all()
        assert ((drawn.factors_NF == 1.0).mean(axis=0) < 0.05).all()  # hardly any value is cut off

    def test_every_factor_varies_within_every_class(self, drawn: SyntheticImages) -> None:
        spreads = np.array([drawn.factors_NF[drawn.labels_N == label].std(axis=0) for label in range(10)])
        assert (spreads > 0.01).all()
        within = np.square(spreads).mean(axis=0) / drawn.factors_NF.var(axis=0)
        assert (within > 0.08).all()  # class alone never says everything

    def test_no_factor_is_a_mixture_of_others(self, drawn: SyntheticImages) -> None:
        standard = (drawn.factors_NF - drawn.factors_NF.mean(0)) / drawn.factors_NF.std(0)
        strengths = np.linalg.svd(standard.astype(float), compute_uv=False)
        assert strengths[-1] / strengths[0] > 0.1

    def test_colour_goes_with_the_kind_but_does_not_give_it_away(self, drawn: SyntheticImages, rgb: np.ndarray) -> None:
        organic = np.array(ORGANIC)[drawn.labels_N]
        colour = rgb.mean((1, 2))
        fit, held = np.arange(600) < 300, np.arange(600) >= 300
        to_organic = np.linalg.norm(colour - colour[fit & organic].mean(0), axis=1)
        to_geometric = np.linalg.norm(colour - colour[fit & ~organic].mean(0), axis=1)
        assert 0.55 < ((to_organic < to_geometric) == organic)[held].mean() < 0.75
