"""The built-in dataset: procedural pictures whose generating factors are known. Downloads nothing.

Axes legend: N image, C colour channel (red, green, blue), H height, W width, F factor; V column of a real
Fourier transform, D direction, R radius.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moe.data.canvas import (
    LUMINANCE_C,
    Array,
    Canvas,
    Layer,
    Palette,
    Rng,
    blend,
    cells,
    chance,
    even_fractal,
    even_noise,
    make_canvas,
    make_palette,
)
from moe.data.painters import KINDS, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES: tuple[str, ...] = tuple(KINDS)
ORGANIC: tuple[bool, ...] = tuple(kind.organic for kind in KINDS.values())

FACTORS: tuple[str, ...] = (
    "organic",  # drawn: irregularity of outline and surface
    "geometric",  # drawn: exactness of built outlines, in the figure or as tiles behind it
    "straight-edged",  # seen: edges share few orientations
    "fine-grained pattern",  # seen: share of luminance contrast at or above 8 cycles per picture
    "elongated",  # drawn: one minus width over length of the parts
    "round",  # drawn: how near the parts come to a circle
    "repetitive",  # seen: how well the picture matches itself after a shift
    "warm-coloured",  # seen: red in excess of blue
    "green",  # seen: green in excess of both other channels
    "blue",  # seen: blue in excess of both other channels
    "colourful",  # seen: spread between the channels
    "bright",  # seen: mean luminance
    "high contrast",  # seen: standard deviation of luminance
    "large",  # drawn: share of the picture that the figure covers
    "many things",  # drawn: logarithm of the number of parts; 1 at 150
    "vertical",  # seen: upright edges outweigh level ones
    "cluttered background",  # drawn: strength of background patches, over the background left visible
)

DRAWING = 2  # to be raised with any change of the pixels; 1 had the same colours in every class
_SMALLEST = 32  # pixels; the band in which patterns are measured ends at 16 cycles per picture
_FINE_CYCLES = 8.0  # per picture
_BAND_CYCLES = (2.0, 16.0)


class SyntheticImages(NamedTuple):
    """Pictures with their classes and factors.

    images_NHWC: uint8.
    labels_N: int64, positions in CLASSES.
    factors_NF: float32 in [0, 1]; columns as in FACTORS.
    """

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    factors_NF: NDArray[np.float32]


def generate(count: int, size: int = 64, seed: int = 0) -> SyntheticImages:
    """Paint `count` pictures of size x size pixels.

    Image i depends on (seed, i) alone and has class i % len(CLASSES), so a shorter set is a prefix of a
    longer one and classes are balanced. Another size shows the same picture at another resolution.

    Raises:
        ValueError: count or seed is negative, or size is below 32 pixels, too few to measure fine pattern.
    """
    if count < 0 or seed < 0 or size < _SMALLEST:
        raise ValueError(f"need count >= 0, seed >= 0 and size >= {_SMALLEST}; got {count=}, {seed=}, {size=}")
    labels_N = np.arange(count, dtype=np.int64) % len(CLASSES)
    images_NHWC = np.empty((count, size, size, 3), dtype=np.uint8)
    factors_NF = np.empty((count, len(FACTORS)), dtype=np.float32)
    canvas, kinds = make_canvas(size), list(KINDS.values())
    for index, label in enumerate(labels_N):
        rng = np.random.default_rng([seed, index])
        pixels_CHW, drawn = _paint(rng, canvas, kinds[label])
        images_NHWC[index] = pixels_CHW.transpose(1, 2, 0)
        known = {**drawn, **_see(pixels_CHW / 255.0)}
        factors_NF[index] = np.clip([known[name] for name in FACTORS], 0.0, 1.0)
    return SyntheticImages(images_NHWC, labels_N, factors_NF)


class _Recipe(NamedTuple):
    """What is settled about a picture before its kind is painted; all in [0, 1]."""

    built: bool
    waver: float
    texture: float
    clutter: float
    tiled: bool


def _make_recipe(rng: Rng, built: bool) -> _Recipe:
    # The ranges overlap, so that irregularity is not a mere name for the kind.
    low, high = (0.0, 0.45) if built else (0.3, 1.0)
    waver, texture = rng.uniform(low, high, 2)
    return _Recipe(built, waver, texture, rng.beta(1.0, 1.3), chance(rng, 0.5))


def _paint(rng: Rng, canvas: Canvas, kind: Kind) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """One picture, and the factors that are known because it was drawn so."""
    recipe, palette = _make_recipe(rng, not kind.organic), make_palette(rng, kind.scene)
    layer = kind.paint(rng, _warp(rng, canvas, recipe.waver), palette)
    relief_HW = even_fractal(rng, len(canvas.x_HW), rng.uniform(3.0, 7.0), 0.8)
    figure_CHW = layer.rgb_CHW * (1.0 + 0.22 * recipe.texture * relief_HW)
    image_CHW = _expose(rng, canvas, blend(_background(rng, canvas, palette, recipe), figure_CHW, layer.alpha_HW))
    pixels_CHW = (np.clip(image_CHW, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return pixels_CHW, _drawn_factors(layer, recipe)


def _drawn_factors(layer: Layer, recipe: _Recipe) -> dict[str, float]:
    covered = float(layer.alpha_HW.mean())
    clutter = recipe.clutter * (1.0 - covered)
    exact = (1.0 - recipe.waver) * recipe.built
    return {
        "organic": 0.5 * (recipe.waver + recipe.texture),
        "geometric": 1.0 - (1.0 - exact) * (1.0 - clutter * recipe.tiled),
        "elongated": layer.elongated,
        "round": layer.rounded,
        "large": covered,
        "many things": float(np.log(max(layer.parts, 1.0)) / np.log(150.0)),
        "cluttered background": clutter,
    }


def _warp(rng: Rng, canvas: Canvas, waver: float) -> Canvas:
    """The canvas as seen through uneven glass, so that straight lines waver."""
    dx_HW, dy_HW = even_noise(rng, len(canvas.x_HW), 3.0), even_noise(rng, len(canvas.x_HW), 3.0)
    return Canvas(canvas.x_HW + 0.11 * waver * dx_HW, canvas.y_HW + 0.11 * waver * dy_HW, canvas.pixel)


def _background(rng: Rng, canvas: Canvas, palette: Palette, recipe: _Recipe) -> Array:
    """A gradient with soft or square patches on it (C, H, W)."""
    angle, frequency = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(1.5, 4.0)
    x_HW, y_HW = canvas.x_HW, canvas.y_HW
    ramp_HW = np.clip(0.5 + 0.5 * (np.cos(angle) * x_HW + np.sin(angle) * y_HW), 0.0, 1.0)
    ground_CHW = blend(palette.ground, palette.ground_far, ramp_HW)
    if recipe.tiled:
        along_HW, across_HW = x_HW + 0.4 * np.sin(angle) * y_HW, y_HW - 0.4 * np.sin(angle) * x_HW
        patches_HW = np.maximum(2.0 * cells(rng, along_HW * frequency, across_HW * frequency) - 1.0, 0.0)
    else:
        patches_HW = np.clip(2.0 * even_fractal(rng, len(x_HW), frequency, 0.5), 0.0, 1.0)
    shift = 0.3 if palette.ground.mean() < 0.5 else -0.3  # away from black and white, where patches would vanish
    tint = 0.6 * chance(rng, 0.4) * (palette.accent - palette.ground) + shift
    return np.asarray(ground_CHW + tint * (recipe.clutter * patches_HW))


def _expose(rng: Rng, canvas: Canvas, image_CHW: Array) -> Array:
    """The camera's part: light from one side, contrast, exposure and grain."""
    angle, fall, grain = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, 0.18), rng.uniform(0.0, 0.03)
    light_HW = 1.0 + fall * (np.cos(angle) * canvas.x_HW + np.sin(angle) * canvas.y_HW)
    light_HW += grain * even_noise(rng, len(canvas.x_HW), 15.0)
    contrast = rng.uniform(0.65, 1.15)
    return np.asarray(image_CHW * (contrast * light_HW) + (0.5 - 0.48 * contrast + rng.normal(0.0, 0.06)))


def _see(image_CHW: Array) -> dict[str, float]:
    """Factors measured on the finished picture, whose values run from 0 to 1."""
    luminance_HW = np.tensordot(LUMINANCE_C, image_CHW, 1)
    return {
        **_see_colour(image_CHW),
        "bright": float(luminance_HW.mean()),
        "high contrast": 2.5 * float(luminance_HW.std()),
        **_see_edges(luminance_HW),
        **_see_pattern(luminance_HW),
    }


def _see_colour(image_CHW: Array) -> dict[str, float]:
    red, green, blue = image_CHW
    warmest, coolest = np.maximum(red, green), np.minimum(red, green)
    return {
        "warm-coloured": 2.0 * float(np.maximum(red - blue, 0.0).mean()),
        "green": 4.0 * float(np.maximum(green - np.maximum(red, blue), 0.0).mean()),
        "blue": 4.0 * float(np.maximum(blue - warmest, 0.0).mean()),
        "colourful": 2.0 * float((np.maximum(warmest, blue) - np.minimum(coolest, blue)).mean()),
    }


def _see_edges(luminance_HW: Array) -> dict[str, float]:
    # Differences over two pixels, so that both components refer to the same place.
    dx_HW = luminance_HW[1:-1, 2:] - luminance_HW[1:-1, :-2]
    dy_HW = luminance_HW[2:, 1:-1] - luminance_HW[:-2, 1:-1]
    energy_HW = dx_HW * dx_HW + dy_HW * dy_HW
    # Doubled angle: an edge and its reverse count as one orientation. Harmonic k is 1 when all edges lie
    # along k evenly spaced orientations (1: parallel lines, 2: right angles, 3: triangles and hexagons).
    total = float(energy_HW.sum()) + 1e-9
    turn_HW = (dx_HW * dx_HW - dy_HW * dy_HW + 2j * dx_HW * dy_HW) / (energy_HW + 1e-9)
    harmonic_HW, strengths = energy_HW.astype(np.complex128), []
    for _ in range(4):
        harmonic_HW = harmonic_HW * turn_HW
        strengths.append(abs(complex(harmonic_HW.sum())) / total)
    upright = (np.vdot(dx_HW, dx_HW) - np.vdot(dy_HW, dy_HW)) / total
    return {
        "straight-edged": float(np.sqrt(np.mean(np.square(strengths)))),
        "vertical": max(0.0, float(upright)),
    }


class _PatternTools(NamedTuple):
    """What measuring pattern needs at one picture size."""

    window_HW: Array
    every_HV: Array  # how often each coefficient counts: those whose mirror image is left out, twice
    fine_HV: Array  # the same for fine pattern, else 0
    band_HV: Array  # 1 in the band where pattern is looked for, else 0
    shifts_DR: NDArray[np.int64]  # flat pixel index of each shift


@lru_cache(maxsize=8)
def _pattern_tools(size: int) -> _PatternTools:
    taper = np.hanning(size + 2)[1:-1]
    across_V = np.fft.rfftfreq(size, 1.0 / size)
    cycles_HV = np.hypot(np.fft.fftfreq(size, 1.0 / size)[:, None], across_V)
    every_HV = np.where((across_V > 0) & (across_V < size / 2), 2.0, 1.0) * np.ones_like(cycles_HV)
    band_HV = ((cycles_HV >= _BAND_CYCLES[0]) & (cycles_HV <= _BAND_CYCLES[1])).astype(np.float64)
    angle_D1, radius_R = np.pi * np.arange(24)[:, None] / 24, size * np.linspace(0.0, 0.36, 28)
    dx_DR, dy_DR = (np.rint(part(angle_D1) * radius_R).astype(np.int64) for part in (np.cos, np.sin))
    shifts_DR = dy_DR % size * size + dx_DR % size
    fine_HV = every_HV * (cycles_HV >= _FINE_CYCLES)
    return _PatternTools(np.outer(taper, taper), every_HV, fine_HV, band_HV, shifts_DR)


def _see_pattern(luminance_HW: Array) -> dict[str, float]:
    tools = _pattern_tools(len(luminance_HW))
    mean = float(np.vdot(luminance_HW, tools.window_HW) / tools.window_HW.sum())
    spectrum = np.fft.rfft2((luminance_HW - mean) * tools.window_HW)
    power_HV = spectrum.real**2 + spectrum.imag**2
    fine = np.vdot(power_HV, tools.fine_HV) / (np.vdot(power_HV, tools.every_HV) + 1e-9)
    # Slow shading is no pattern, and grain none that is seen: match within a band.
    match_DR = np.fft.irfft2(power_HV * tools.band_HV, s=luminance_HW.shape).ravel()[tools.shifts_DR]
    # A lone edge also matches itself when slid along; only a pattern loses the match and finds it again.
    rebound_DR = np.minimum(match_DR, match_DR - np.minimum.accumulate(match_DR, axis=1))
    return {
        "fine-grained pattern": float(np.sqrt(fine)),
        "repetitive": 1.2 * float(rebound_DR.max() / (match_DR[0, 0] + 1e-9)),
    }
