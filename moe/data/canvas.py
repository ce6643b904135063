"""What painters draw with: coordinates, palettes, noise and shapes, all in unit coordinates.

Axes legend: C colour channel (red, green, blue), H height, W width; S pixel along an axis, K knot on it.
Colours run from 0 to 1; the picture spans -1 to 1 on both axes, y upwards. No random draw depends on the
number of pixels, so a picture keeps its content at every resolution.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rng = np.random.Generator

LUMINANCE_C = np.array([0.299, 0.587, 0.114])  # Rec. 601
_HSV_PHASE = np.array([5.0, 3.0, 1.0]).reshape(3, 1, 1)
LATTICE = 32  # side of the periodic random lattices; a power of two, so wrapping is a bit mask


class Canvas(NamedTuple):
    """Where each pixel lies in the plane that painters draw in, and how wide a pixel is there."""

    x_HW: Array
    y_HW: Array
    pixel: float


class Palette(NamedTuple):
    """Colours of one picture: two for the background, three for the figure; each (C, 1, 1)."""

    ground: Array
    ground_far: Array
    figure: Array
    accent: Array
    deep: Array


class Layer(NamedTuple):
    """A painted figure and what is known about it because it was drawn so.

    rgb_CHW: colours; alpha_HW: opacity in [0, 1].
    elongated: one minus the width of the drawn parts over their length; in [0, 1].
    rounded: 1 for a circular part, 0 for one with sharp corners or a sliver; in [0, 1].
    parts: how many parts of the same kind were drawn.
    """

    rgb_CHW: Array
    alpha_HW: Array
    elongated: float
    rounded: float
    parts: float


Painter = Callable[[Rng, Canvas, Palette], Layer]


def make_canvas(size: int) -> Canvas:
    """Undistorted canvas of size x size pixel centres."""
    axis = (2.0 * np.arange(size) + 1.0) / size - 1.0
    x_HW, y_HW = np.meshgrid(axis, -axis)
    return Canvas(x_HW, y_HW, 2.0 / size)


def hsv(hue: float, saturation: float, value: float) -> Array:
    """Colour (C, 1, 1) from hue (turns), saturation and value in [0, 1]."""
    k = (_HSV_PHASE + 6.0 * hue) % 6.0
    return np.asarray(value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))


class Tones(NamedTuple):
    """Where the colours of a thing lie: ranges of hue (turns), saturation and value."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


class Scene(NamedTuple):
    """The usual colours of a kind of picture: of its background and of its figure."""

    ground: Tones
    figure: Tones


# Mostly skin-to-straw, leaf and sky hues, as in photographs; at times any hue at all.
_HUES = ((0.01, 0.15), (0.2, 0.42), (0.5, 0.66), (0.0, 1.0))
_HUE_SHARES = (0.36, 0.58, 0.82)  # cumulative
_MIDDLE = 0.45  # luminance
_USUAL = 0.8  # share of grounds, and of figures, in their kind's own colours; the others take any


def _hue(rng: Rng) -> float:
    return float(rng.uniform(*_HUES[bisect(_HUE_SHARES, rng.random())]))


def chance(rng: Rng, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def _tone(rng: Rng, usual: Tones, other: float) -> Array:
    """A colour (C, 1, 1): a kind's usual one, or any that is light where the other is dark."""
    if chance(rng, _USUAL):
        return hsv(*(float(rng.uniform(*part)) for part in usual))
    value = rng.uniform(0.7, 1.0) if other < _MIDDLE else rng.uniform(0.16, 0.5)
    return hsv(_hue(rng), rng.beta(2.2, 2.6), value)


def _luminance(colour: Array) -> float:
    return float(np.vdot(LUMINANCE_C, colour.ravel()))


def make_palette(rng: Rng, scene: Scene) -> Palette:
    """Colours that go with a kind, as fur goes with grass and cars with asphalt, but do not give it away."""
    ground = _tone(rng, scene.ground, float(np.mean(scene.figure.value)))
    figure = _tone(rng, scene.figure, _luminance(ground))
    # marks on the figure are seen in black and white too
    light = _luminance(figure) < _MIDDLE
    value, saturation = (rng.uniform(0.75, 1.0), 0.7) if light else (rng.uniform(0.1, 0.35), 1.0)
    accent = hsv(_hue(rng), saturation * rng.beta(2.2, 2.6), value)
    far = ground * rng.uniform(0.6, 0.95) + rng.normal(0.0, 0.03, (3, 1, 1))
    return Palette(ground, np.clip(far, 0.0, 1.0), figure, accent, 0.45 * figure)


@lru_cache(maxsize=256)
def _knot_weights(size: int, quarters: int) -> Array:
    """Weights (S, K) that interpolate values at quarters / 4 knots per unit of the plane to pixel centres."""
    place = (np.arange(size) + 0.5) / size * 0.5 * quarters
    near_SK = np.clip(1.0 - np.abs(place[:, None] - np.arange(int(place[-1]) + 2)), 0.0, 1.0)
    return np.asarray(near_SK * near_SK * (3.0 - 2.0 * near_SK))


def even_noise(rng: Rng, size: int, frequency: float) -> Array:
    """`noise` over the undistorted picture (H, W), at a fraction of the cost.

    One matrix interpolates rows and columns; the frequency is rounded to quarters, so that it can be kept.
    """
    quarters = int(4.0 * frequency + 0.5)
    knots = quarters // 2 + 2
    weights_SK = _knot_weights(size, quarters)
    values = rng.uniform(-1.0, 1.0, (knots, knots))[: weights_SK.shape[1], : weights_SK.shape[1]]
    return np.asarray(weights_SK @ values @ weights_SK.T)


def even_fractal(rng: Rng, size: int, frequency: float, roughness: float) -> Array:
    """Two octaves of `even_noise`; in about [-1, 1]."""
    coarse_HW, fine_HW = even_noise(rng, size, frequency), even_noise(rng, size, 2.0 * frequency)
    return np.asarray((coarse_HW + roughness * fine_HW) / np.sqrt(1.0 + roughness**2))


def noise(rng: Rng, u_HW: Array, v_HW: Array, frequency: float = 1.0) -> Array:
    """Smooth random field in about [-1, 1] with one independent value per 1/frequency of u and v."""
    values = 2.0 * lattice(rng) - 1.0
    corner_HW, a_HW, b_HW = squares(u_HW * frequency, v_HW * frequency)
    a_HW, b_HW = a_HW * a_HW * (3.0 - 2.0 * a_HW), b_HW * b_HW * (3.0 - 2.0 * b_HW)
    near, far = values.take(corner_HW), values[LATTICE:].take(corner_HW)
    near += (values[1:].take(corner_HW) - near) * b_HW
    far += (values[LATTICE + 1 :].take(corner_HW) - far) * b_HW
    return np.asarray(near + (far - near) * a_HW)


def lattice(rng: Rng) -> Array:
    """Flat periodic lattice of values in [0, 1), its first rows repeated to spare neighbours the wrapping."""
    values = rng.random(LATTICE * LATTICE)
    return np.concatenate((values, values[: 3 * LATTICE]))


def squares(a_HW: Array, b_HW: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """The unit square that holds each point, as a position in a lattice, and where in it the point lies."""
    i_HW, j_HW = np.floor(a_HW), np.floor(b_HW)
    corner_HW = (i_HW * LATTICE + j_HW).astype(np.int64) & (LATTICE * LATTICE - 1)
    return corner_HW, a_HW - i_HW, b_HW - j_HW


def cells(rng: Rng, row_HW: Array, column_HW: Array) -> Array:
    """One random value in [0, 1) per unit square of the plane: pixels of the same square share it."""
    return lattice(rng).take(squares(row_HW, column_HW)[0])


def fraction(a_HW: Array) -> Array:
    """Distance above the next lower whole number; much faster than the remainder by one."""
    return a_HW - np.floor(a_HW)


def cover(distance_HW: Array, pixel: float) -> Array:
    """Anti-aliased opacity of the region where a signed distance is negative."""
    return np.clip(0.5 - distance_HW / pixel, 0.0, 1.0)


def blend(below: Array, above: Array | float, alpha_HW: Array) -> Array:
    """`above` over `below`; each is (C, H, W), one colour (C, 1, 1) or one grey."""
    return np.asarray(below + (above - below) * alpha_HW)


def length(u_HW: Array, v_HW: Array) -> Array:
    """Distance of each pixel from the origin."""
    return np.asarray(np.sqrt(u_HW * u_HW + v_HW * v_HW))  # several times faster than np.hypot


def bare(canvas: Canvas, palette: Palette) -> tuple[Array, Array]:
    """Colours and opacity of a layer with nothing on it yet."""
    return palette.figure, np.zeros_like(canvas.x_HW)


def _turn(u_HW: Array, v_HW: Array, angle: float) -> tuple[Array, Array]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * u_HW + sin * v_HW, cos * v_HW - sin * u_HW


def place(rng: Rng, canvas: Canvas, spread: float, angle: float) -> tuple[Array, Array]:
    """Coordinates about a random centre at most `spread` from the middle, turned by angle."""
    dx, dy = rng.uniform(-spread, spread, 2)
    return _turn(canvas.x_HW - dx, canvas.y_HW - dy, angle)


def box(u_HW: Array, v_HW: Array, half_u: float, half_v: float, radius: float = 0.0) -> Array:
    """Signed distance to a rectangle with rounded corners."""
    du, dv = np.abs(u_HW) - (half_u - radius), np.abs(v_HW) - (half_v - radius)
    if radius == 0.0:
        return np.asarray(np.maximum(du, dv))
    outside = length(np.maximum(du, 0.0), np.maximum(dv, 0.0))
    return np.asarray(outside + np.minimum(np.maximum(du, dv), 0.0) - radius)


def lump(rng: Rng, u_HW: Array, v_HW: Array, half_u: float, half_v: float) -> Array:
    """Rough signed distance to an ellipse with a wavy outline."""
    z_HW = u_HW / half_u + 1j * (v_HW / half_v)
    reach_HW = np.abs(z_HW)
    z_HW = z_HW / (reach_HW + 1e-9)
    # The real parts of z^2, z^3 and z^5 are waves of two, three and five periods around the outline.
    waves = rng.uniform(0.0, 0.1, 3) * np.exp(1j * rng.uniform(0.0, 2.0 * np.pi, 3))
    square_HW = z_HW * z_HW
    outline_HW = 1.0 + (square_HW * (waves[0] + z_HW * (waves[1] + waves[2] * square_HW))).real
    return np.asarray((reach_HW - outline_HW) * min(half_u, half_v))


def many(rng: Rng, most: int) -> int:
    """How many figures to draw: small numbers are likelier."""
    return int(1 + (most - 1) * rng.beta(0.8, 1.4) + 0.5)
