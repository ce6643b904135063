"""Statistics of pictures whose answer is known."""

import numpy as np
import pytest

from probes.statistics.image_statistics import STATISTICS, image_statistics


def of(picture):
    """The statistics of one picture, (H, W) luma from 0 to 1 or (H, W, 3) of 255, by name."""
    if picture.ndim == 2:
        picture = np.repeat(np.round(255 * picture).astype(np.uint8)[..., None], 3, axis=2)
    return dict(zip(STATISTICS, image_statistics(picture[None])[0], strict=True))


def grating(waves_x, waves_y, size=64):
    y, x = np.mgrid[:size, :size] / size
    return 0.5 + 0.4 * np.sin(2 * np.pi * (waves_x * x + waves_y * y))


def test_light_and_colour():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    found = of(red)
    assert found["luminance"] == pytest.approx(0.2126)
    assert (found["contrast"], found["red_green"], found["blue_yellow"], found["saturation"]) == pytest.approx(
        (0, 1, -0.5, 1)
    )
    half = np.zeros((16, 16))
    half[:, :8] = 1
    assert (of(half)["luminance"], of(half)["contrast"]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("wave", "structure"),
    [((0, 8), "horizontal"), ((8, 0), "vertical"), ((6, 6), "rising"), ((6, -6), "falling")],
)
def test_orientation(wave, structure):
    """x + y constant: a line that rises to the right, as y points downwards."""
    found = of(grating(*wave))
    assert found[structure] > 0.95
    assert sum(found[name] for name in ("horizontal", "rising", "vertical", "falling")) == pytest.approx(1)


@pytest.mark.parametrize(("waves", "octave"), [(24, 0), (12, 1), (6, 2), (3, 3), (1, 4)])
def test_octaves_are_counted_from_the_finest(waves, octave):
    """The window leaves 2/3 of the power in place and sends 1/6 a cycle up, and as much down."""
    found = of(grating(waves, 0))
    assert found[f"octave_{octave}"] > 5 / 6 - 0.01
    assert sum(found[f"octave_{band}"] for band in range(5)) == pytest.approx(1)


@pytest.mark.parametrize("exponent", [0, -1, -2, -3])
def test_slope_of_noise_with_a_known_spectrum(exponent):
    rng = np.random.default_rng(0)
    size = 128
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = np.inf
    slopes = []
    for _ in range(6):
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * frequency ** (exponent / 2)).real
        slopes.append(of(np.clip(0.5 + 0.12 * noise / noise.std(), 0, 1))["spectral_slope"])
    assert np.mean(slopes) == pytest.approx(exponent, abs=0.25)


def test_bars():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    assert of(picture)["bars"] == 0
    boxed = picture.copy()
    boxed[:5] = 0
    boxed[-5:] = (3, 2, 1)
    assert of(boxed)["bars"] == pytest.approx(10 / 40)
    boxed[:, :4] = 0
    assert of(boxed)["bars"] == pytest.approx(1 - 30 * 36 / 1600)
    inside = picture.copy()
    inside[20] = 0  # a dark line is no bar
    assert of(inside)["bars"] == 0


def test_one_colour_is_all_bar_and_has_no_texture():
    found = of(np.full((16, 16), 0.5))
    assert found.pop("luminance") == pytest.approx(0.5, abs=0.01)
    assert found.pop("bars") == 1
    assert all(value == pytest.approx(0, abs=1e-9) for value in found.values())


def test_chunks_and_shapes():
    pictures = np.random.default_rng(0).integers(0, 256, (300, 12, 20, 3)).astype(np.uint8)
    found = image_statistics(pictures)
    assert found.shape == (300, len(STATISTICS))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[270], image_statistics(pictures[270:271])[0])
    assert image_statistics(pictures[:0]).shape == (0, len(STATISTICS))
