"""Procedural painters: one small function per kind of picture, all drawn in unit coordinates.

Axes legend: H height, W width. See moe.data.canvas for colours and coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from moe.data.canvas import (
    LATTICE,
    Array,
    Canvas,
    Layer,
    Painter,
    Palette,
    Rng,
    Scene,
    Tones,
    bare,
    blend,
    box,
    cells,
    chance,
    cover,
    even_fractal,
    fraction,
    lattice,
    length,
    lump,
    many,
    noise,
    place,
    squares,
)


def creature(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """One to four round animals with legs, a head, eyes and a patched coat."""
    count = many(rng, 4)
    aspect = rng.uniform(1.0, 2.2)
    size = rng.uniform(0.34, 0.62) / count**0.4
    patches = 0.5 + 1.6 * even_fractal(rng, len(canvas.x_HW), rng.uniform(2.0, 5.0) / size**0.5, 0.5)
    coat_CHW = blend(palette.figure, palette.accent, np.clip(patches, 0.0, 1.0))
    rgb_CHW, alpha_HW = coat_CHW, np.zeros_like(canvas.x_HW)
    half_u, half_v = size * aspect**0.5, size / aspect**0.5
    for _ in range(count):
        u_HW, v_HW = place(rng, canvas, 0.1 + 0.18 * count, rng.normal(0.0, 0.25))
        u_HW = u_HW * rng.choice((-1.0, 1.0))
        head_u, head_v, head = 0.85 * half_u, 0.75 * half_v, rng.uniform(0.5, 0.65) * half_v
        skull = length(u_HW - head_u, v_HW - head_v) - head
        ears = length(np.abs(u_HW - head_u) - 0.75 * head, v_HW - head_v - 0.9 * head) - 0.38 * head
        step = np.abs(np.abs(u_HW) - 0.5 * half_u) - 0.16 * half_v
        legs = np.maximum(step, np.abs(v_HW + 1.05 * half_v) - 0.45 * half_v)
        belly = lump(rng, u_HW, v_HW, half_u, half_v)
        body_HW = cover(np.minimum(np.minimum(belly, legs), np.minimum(skull, ears)), canvas.pixel)
        shade = np.clip(0.82 + 0.4 * v_HW / half_v, 0.4, 1.12)
        rgb_CHW = blend(rgb_CHW, coat_CHW * shade, body_HW)
        eyes = length(np.abs(u_HW - head_u - 0.1 * head) - 0.38 * head, v_HW - head_v - 0.1 * head)
        rgb_CHW = blend(rgb_CHW, 0.95, cover(eyes - 0.27 * head, canvas.pixel))
        rgb_CHW = blend(rgb_CHW, 0.05, cover(eyes - 0.15 * head, canvas.pixel))
        alpha_HW = np.maximum(alpha_HW, body_HW)
    return Layer(rgb_CHW, alpha_HW, 1.0 - 1.0 / aspect, 0.85 / aspect, count)


def fur(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """A tuft of hair combed along a slowly turning direction, with a ragged outline."""
    u_HW, v_HW = place(rng, canvas, 0.3, rng.uniform(0.0, np.pi))
    v_HW = v_HW + 0.25 * noise(rng, u_HW, v_HW, 1.1)
    hairs, slenderness = rng.uniform(6.0, 13.0), rng.uniform(2.5, 9.0)
    hair = noise(rng, u_HW * hairs / slenderness, v_HW * hairs)
    hair = 0.65 * hair + 0.45 * noise(rng, u_HW * hairs / slenderness, v_HW * hairs, 1.9)
    band = noise(rng, u_HW, v_HW, rng.uniform(1.0, 2.5))
    size, aspect = rng.uniform(0.5, 1.15), rng.uniform(1.0, 1.8)
    outline = lump(rng, u_HW, v_HW, size * aspect**0.5, size / aspect**0.5)
    rgb_CHW = blend(palette.figure, palette.accent, np.clip(0.5 + 1.4 * band, 0.0, 1.0))
    rgb_CHW = rgb_CHW * (0.78 + 0.5 * hair)
    alpha_HW = cover(outline + 0.13 * hair, 2.0 * canvas.pixel)
    parts = np.pi * size**2 * hairs**2 / slenderness
    return Layer(rgb_CHW, alpha_HW, 1.0 - 1.0 / slenderness, 0.6 / aspect, parts)


def tissue(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """A clump of cells with walls and nuclei."""
    angle, scale, aspect = rng.uniform(0.0, np.pi), rng.uniform(1.8, 5.5), rng.uniform(1.0, 2.6)
    jitter, shrink = rng.uniform(0.35, 0.8), rng.uniform(0.5, 0.95)
    u_HW, v_HW = place(rng, canvas, 0.3, angle)
    size = rng.uniform(0.55, 1.3)
    clump = lump(rng, u_HW, v_HW, size, size * rng.uniform(0.7, 1.0))
    first, second, tone = _nearest(rng, u_HW * scale / aspect**0.5, v_HW * scale * aspect**0.5, jitter)
    wall = np.clip((second - first - 0.1) * 5.0, 0.0, 1.0)
    rgb_CHW = blend(palette.figure, palette.accent, 0.45 * tone) * (1.1 - 0.45 * first)
    rgb_CHW = blend(palette.deep, rgb_CHW, wall)
    nucleus = np.clip((rng.uniform(0.18, 0.34) - first) * 10.0, 0.0, 1.0)
    rgb_CHW = blend(rgb_CHW, palette.accent if chance(rng, 0.6) else palette.deep, nucleus)
    # Cells at the rim are whole: the outline follows the walls rather than cutting through.
    alpha_HW = cover(clump + 0.35 / scale * (first - shrink), canvas.pixel)
    return Layer(rgb_CHW, alpha_HW, 1.0 - 1.0 / aspect, 0.9 / aspect, np.pi * size**2 * scale**2)


def _nearest(rng: Rng, a_HW: Array, b_HW: Array, jitter: float) -> tuple[Array, Array, Array]:
    """Distances to the two nearest of one jittered point per unit square, and the nearest one's value."""
    # Start at the square before on both axes: the nine neighbours then lie ahead.
    corner_HW, a_HW, b_HW = squares(a_HW - 1.0, b_HW - 1.0)
    down, right = (0.5 + jitter * (lattice(rng) - 0.5) for _ in range(2))
    tone = lattice(rng)
    first, second = np.full_like(a_HW, 9.0), np.full_like(a_HW, 9.0)
    owner = corner_HW
    for di in range(3):
        for dj in range(3):
            ahead = di * LATTICE + dj
            da_HW = down[ahead:].take(corner_HW) + (di - 1 - a_HW)
            db_HW = right[ahead:].take(corner_HW) + (dj - 1 - b_HW)
            far = da_HW * da_HW + db_HW * db_HW
            second = np.minimum(second, np.maximum(first, far))
            owner = np.where(far < first, corner_HW + ahead, owner)
            first = np.minimum(first, far)
    return np.sqrt(first), np.sqrt(second), tone.take(owner)


def foliage(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """One to four fronds: a bent stem with slanting leaves on both sides."""
    count = many(rng, 4)
    leaves, slender = rng.uniform(3.0, 7.0), rng.uniform(0.45, 0.8)
    lean, toward = rng.uniform(0.3, 1.0), rng.uniform(-np.pi, np.pi)
    length, width = rng.uniform(0.7, 1.15), rng.uniform(0.4, 0.75)
    rgb_CHW, alpha_HW = bare(canvas, palette)
    for _ in range(count):
        u_HW, v_HW = place(rng, canvas, 0.15 + 0.12 * count, toward + rng.normal(0.0, 0.5))
        v_HW = v_HW + rng.normal(0.0, 0.25) * u_HW**2
        aside = np.abs(v_HW)
        along = (u_HW - lean * aside) * leaves / length + rng.random()
        node = (np.floor(along) + 0.5) * length / leaves
        reach = width * length * np.clip(1.15 - np.abs(node / length + 0.15) ** 2, 0.0, 1.0)
        inside = np.clip(aside / np.maximum(reach, 1e-3), 0.0, 1.0)
        profile = slender * np.sqrt(np.clip(inside * (1.0 - inside) * 4.0, 0.0, 1.0))
        gap = (np.abs(fraction(along) - 0.5) - 0.5 * profile) * length / leaves
        blade = np.maximum(np.maximum(gap, aside - reach), np.abs(node) - length)
        stem = np.maximum(aside - 0.022, np.abs(u_HW) - length)
        tone = palette.figure + (palette.accent - palette.figure) * rng.uniform(0.0, 0.6)
        tint = tone * (0.7 + 0.5 * inside * np.round(fraction(along)))
        drawn = np.maximum(cover(blade, canvas.pixel), cover(stem, canvas.pixel))
        rgb_CHW = blend(rgb_CHW, blend(tint, palette.deep, cover(stem, canvas.pixel)), drawn)
        alpha_HW = np.maximum(alpha_HW, drawn)
    leaf = slender / (leaves * width)
    return Layer(rgb_CHW, alpha_HW, 1.0 - leaf, 0.4 * leaf, 4.0 * leaves * count)


def cloud(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """Billows with soft edges, lit from one side."""
    stretch, frequency = rng.uniform(1.0, 3.2), rng.uniform(1.0, 2.4)
    u_HW, v_HW = place(rng, canvas, 1.0, rng.normal(0.0, 0.6))
    u_HW, v_HW = u_HW / stretch**0.5, v_HW * stretch**0.5
    octaves = (0.8 * 0.55**k * noise(rng, u_HW, v_HW, frequency * 2.0**k) for k in range(4))
    field = sum(octaves, np.zeros_like(u_HW))
    level = rng.uniform(-0.4, 0.25)
    alpha_HW = np.clip((field - level) / rng.uniform(0.2, 0.7), 0.0, 1.0)
    slope = -np.gradient(field, axis=0) / canvas.pixel
    light = np.clip(0.6 * (field - level) + 0.07 * slope + 0.35, 0.0, 1.0)
    rgb_CHW = blend(0.5 * (palette.accent + palette.figure), palette.figure, light) * (0.8 + 0.3 * light)
    return Layer(rgb_CHW, alpha_HW, 1.0 - 1.0 / stretch, 0.5 / stretch, 4.0 * frequency**2)


def boxes(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """One to four solid boxes, each with a front, a lid and a side."""
    count = many(rng, 4)
    aspect, soft, angle = rng.uniform(1.0, 3.0), rng.uniform(0.0, 0.6), rng.normal(0.0, 0.35)
    angle = angle + 0.5 * np.pi * rng.integers(2)
    size = rng.uniform(0.3, 0.52) / count**0.35
    depth, slant = size * rng.uniform(0.25, 0.7), rng.uniform(0.4, 1.0)
    rgb_CHW, alpha_HW = bare(canvas, palette)
    for _ in range(count):
        u_HW, v_HW = place(rng, canvas, 0.1 + 0.16 * count, angle)
        half_u, half_v = np.array((aspect**0.5, aspect**-0.5)) * size * rng.uniform(0.75, 1.2)
        u_HW, v_HW = u_HW + 0.5 * depth, v_HW + 0.5 * depth * slant
        tone = palette.figure + (palette.accent - palette.figure) * rng.choice((0.0, 0.5, 1.0))
        lid_u, lid_v = u_HW - (v_HW - half_v) / slant, v_HW - half_v - 0.5 * depth * slant
        side_u, side_v = u_HW - half_u - 0.5 * depth, v_HW - (u_HW - half_u) * slant
        lid = cover(box(lid_u, lid_v, half_u, 0.5 * depth * slant), canvas.pixel)
        side = cover(box(side_u, side_v, 0.5 * depth, half_v), canvas.pixel)
        front = cover(box(u_HW, v_HW, half_u, half_v), canvas.pixel)
        panel = box(u_HW, v_HW, 0.72 * half_u, 0.72 * half_v, 0.72 * soft * min(half_u, half_v))
        for face, shade in ((lid, 1.25), (side, 0.55), (front, 0.9)):
            rgb_CHW = blend(rgb_CHW, tone * shade, face)
        rgb_CHW = blend(rgb_CHW, palette.deep, 0.7 * cover(panel, canvas.pixel))
        alpha_HW = np.maximum(alpha_HW, np.maximum(front, np.maximum(lid, side)))
    return Layer(rgb_CHW, alpha_HW, 1.0 - 1.0 / aspect, soft / aspect, count)


def bricks(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """A wall of bricks or tiles with mortar between."""
    rows, aspect, soft = rng.uniform(2.5, 7.0), rng.uniform(1.0, 3.2), rng.uniform(0.0, 0.9)
    u_HW, v_HW = place(rng, canvas, 0.35, rng.normal(0.0, 0.25) + 0.5 * np.pi * chance(rng, 0.25))
    half_u, half_v = rng.uniform(0.6, 1.3, 2)
    wall = box(u_HW, v_HW, half_u, half_v)
    pitch = 0.75 * rows * aspect**0.5
    row = v_HW * pitch
    shift = 0.5 * chance(rng, 0.6) * np.floor(2.0 * fraction(0.5 * row))
    column = u_HW * pitch / aspect + shift
    joint = rng.uniform(0.03, 0.09)
    tall, wide = 0.5 - joint * aspect**0.5, 0.5 * aspect - joint * aspect**0.5
    brick = box((fraction(column) - 0.5) * aspect, fraction(row) - 0.5, wide, tall, soft * tall)
    tone = cells(rng, row, column) * rng.uniform(0.3, 1.0)
    rgb_CHW = blend(palette.figure, palette.accent, tone)
    rgb_CHW = blend(palette.deep, rgb_CHW, cover(brick, canvas.pixel * pitch))
    parts = 4.0 * half_u * half_v * (rows * 0.75) ** 2
    return Layer(rgb_CHW, cover(wall, canvas.pixel), 1.0 - 1.0 / aspect, soft / aspect, parts)


def rings(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """One to four discs of concentric bands, like targets, plates or wheels."""
    count, bands = many(rng, 4), int(rng.integers(1, 5))
    aspect, angle = rng.uniform(1.0, 2.2), rng.uniform(0.0, np.pi)
    size, hole = rng.uniform(0.45, 0.85) / count**0.4, rng.uniform(0.0, 0.4)
    rgb_CHW, alpha_HW = bare(canvas, palette)
    for _ in range(count):
        u_HW, v_HW = place(rng, canvas, 0.1 + 0.16 * count, angle)
        radius = size * rng.uniform(0.75, 1.15)
        reach = length(u_HW * aspect**-0.5, v_HW * aspect**0.5) / radius
        edge = canvas.pixel / radius
        across = reach * bands
        stripe = cover(np.abs(fraction(across) - 0.5) - 0.27, edge * bands)
        face = blend(palette.figure, palette.accent, stripe)
        disc = np.minimum(cover(reach - 1.0, edge), 1.0 - cover(reach - hole, edge))
        rgb_CHW = blend(rgb_CHW, face, disc)
        alpha_HW = np.maximum(alpha_HW, disc)
    return Layer(rgb_CHW, alpha_HW, 1.0 - 1.0 / aspect, 1.0 / aspect, count * bands)


def star(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """One to five polygons or stars, each with a smaller one set into it."""
    count, corners = many(rng, 5), int(rng.integers(3, 8))
    aspect = rng.uniform(1.0, 1.9)
    # At this inner radius the sides are straight: a polygon; below it, ever sharper rays.
    inner = np.cos(np.pi / corners) * (1.0 if chance(rng, 0.35) else rng.uniform(0.4, 0.8))
    size, inset = rng.uniform(0.55, 0.95) / count**0.42, rng.uniform(0.3, 0.75)
    half = np.pi / corners
    rgb_CHW, alpha_HW = bare(canvas, palette)
    stretch_angle = rng.uniform(0.0, np.pi)
    for _ in range(count):
        u_HW, v_HW = place(rng, canvas, 0.1 + 0.15 * count, stretch_angle)
        u_HW, v_HW = u_HW * aspect**-0.5, v_HW * aspect**0.5
        radius = size * rng.uniform(0.75, 1.15)
        turn = np.arctan2(v_HW, u_HW) / (2.0 * half) + rng.random()
        angle = np.abs(2.0 * fraction(turn) - 1.0) * half
        reach = length(u_HW, v_HW) / radius
        # Tips sit at half a sector from the fold; the side runs from a tip to an inner corner.
        across, along = reach * np.cos(half - angle), reach * np.sin(half - angle)
        run, rise = inner * np.cos(half) - 1.0, inner * np.sin(half)
        side = ((across - 1.0) * rise - along * run) / np.hypot(run, rise)
        body = cover(side, canvas.pixel / radius)
        core = cover(side + inset * rise / np.hypot(run, rise), canvas.pixel / radius)
        tone = palette.figure * rng.uniform(0.75, 1.1)
        rgb_CHW = blend(rgb_CHW, blend(tone, palette.accent, core), body)
        alpha_HW = np.maximum(alpha_HW, body)
    return Layer(rgb_CHW, alpha_HW, 1.0 - 1.0 / aspect, inner / aspect, count)


def stripes(rng: Rng, canvas: Canvas, palette: Palette) -> Layer:
    """A flag, grille or awning: straight bars across a rectangular panel."""
    angle = rng.uniform(0.0, np.pi)
    u_HW, v_HW = place(rng, canvas, 0.3, angle)
    half_u, half_v, bars = rng.uniform(0.45, 1.25), rng.uniform(0.45, 1.25), int(rng.integers(3, 11))
    soft = rng.uniform(0.0, 1.0)
    width = half_u / bars
    across = u_HW / (2.0 * width) + 0.5 * (bars % 2)
    duty = rng.uniform(0.3, 0.7)
    bar = cover(np.abs(fraction(across) - 0.5) - 0.5 * duty, canvas.pixel / (2.0 * width))
    tone = cells(rng, across, across * 0.0) * rng.choice((0.0, 0.6))
    rgb_CHW = blend(palette.accent, blend(palette.figure, palette.deep, tone), bar)
    panel = box(u_HW, v_HW, half_u, half_v, soft * min(half_u, half_v))
    slender = duty * width / half_v
    slender = min(slender, 1.0 / slender)
    return Layer(rgb_CHW, cover(panel, canvas.pixel), 1.0 - slender, 0.4 * soft * slender, bars)


# Hues in turns: straw .1, grass .3, sky .55, magenta .9.
_GRASS = Tones((0.2, 0.36), (0.3, 0.7), (0.3, 0.65))
_EARTH = Tones((0.03, 0.12), (0.3, 0.65), (0.25, 0.55))
_SKY = Tones((0.53, 0.6), (0.25, 0.6), (0.75, 1.0))
_ASPHALT = Tones((0.5, 0.7), (0.0, 0.15), (0.3, 0.65))
_CONCRETE = Tones((0.5, 0.7), (0.0, 0.15), (0.65, 0.95))


class Kind(NamedTuple):
    """A kind of picture: who paints it, whether its like grows or is built, and its usual colours."""

    paint: Painter
    organic: bool
    scene: Scene


KINDS: dict[str, Kind] = {
    "creature": Kind(creature, True, Scene(_GRASS, Tones((0.04, 0.11), (0.35, 0.8), (0.35, 0.9)))),
    "fur": Kind(fur, True, Scene(_EARTH, Tones((0.07, 0.13), (0.1, 0.5), (0.6, 1.0)))),
    "tissue": Kind(
        tissue, True, Scene(Tones((0.85, 1.0), (0.05, 0.3), (0.8, 1.0)), Tones((0.82, 0.98), (0.4, 0.8), (0.4, 0.8)))
    ),
    "foliage": Kind(foliage, True, Scene(_EARTH, Tones((0.22, 0.4), (0.5, 0.95), (0.4, 0.85)))),
    "cloud": Kind(cloud, True, Scene(_SKY, Tones((0.5, 0.65), (0.0, 0.15), (0.85, 1.0)))),
    "boxes": Kind(boxes, False, Scene(_CONCRETE, Tones((0.5, 0.7), (0.5, 0.95), (0.4, 0.9)))),
    "bricks": Kind(bricks, False, Scene(_SKY, Tones((0.98, 1.06), (0.5, 0.85), (0.45, 0.8)))),
    "rings": Kind(rings, False, Scene(_ASPHALT, Tones((0.0, 1.0), (0.0, 0.2), (0.1, 0.4)))),
    "star": Kind(
        star, False, Scene(Tones((0.6, 0.72), (0.5, 0.9), (0.15, 0.4)), Tones((0.1, 0.17), (0.6, 1.0), (0.8, 1.0)))
    ),
    "stripes": Kind(stripes, False, Scene(_SKY, Tones((0.9, 1.02), (0.6, 1.0), (0.6, 1.0)))),
}
