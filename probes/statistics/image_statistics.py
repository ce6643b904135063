"""Low-level statistics of images: what light, colour, texture and frame say, without any object.

Axes: n images, B images of a chunk, H, W, three colours (C), s statistics.
"""

import numpy as np
from numpy.typing import NDArray

_CHUNK = 256  # images
_LUMA_C = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709
_FLAT = 6  # of 255: a row that varies by no more is a bar, JPEG's noise allowed for
_BANDS = 5  # octaves, from the highest frequency down; the last one has all below
_ORIENTATIONS = 4  # of the structure: horizontal, rising, vertical, falling
_NO_POWER = 1e-12

STATISTICS = (
    "luminance", "contrast", "red_green", "blue_yellow", "saturation", "spectral_slope",
    *(f"octave_{band}" for band in range(_BANDS)),
    "horizontal", "rising", "vertical", "falling", "bars",
)  # fmt: skip


def image_statistics(images_nHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The numbers of STATISTICS for each image, (n, s); finite throughout.

    - ``luminance`` and ``contrast``: mean and standard deviation of the luma, 0 to 1.
    - ``red_green``, ``blue_yellow``: means of R - G and of B - (R + G) / 2, -1 to 1; ``saturation``: of max - min.
    - ``spectral_slope``: of log power on log frequency (cycles an image, 1 to the Nyquist frequency), about -2 for
      photographs; 0 for an image of one colour.
    - ``octave_0``, ...: share of the luma's power in each octave, the finest first; the last has all below.
    - ``horizontal``, ``rising``, ``vertical``, ``falling``: share of the power in structure of each orientation, to
      within 22.5 degrees.
    - ``bars``: share of the image that is letterbox: rows at top and bottom, then columns at the sides, of one colour.

    Power is that of the luma less its mean under a Hann window, so that opposite borders make no edge; it smears
    frequencies by a cycle an image.

    Args:
        images_nHWC: pictures of one size, at least 8 x 8 pixels.
    """
    parts = [_of_chunk(np.asarray(images_nHWC[start : start + _CHUNK])) for start in range(0, len(images_nHWC), _CHUNK)]
    return np.concatenate(parts) if parts else np.empty((0, len(STATISTICS)))


def _of_chunk(images_BHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    pixels_BHWC = images_BHWC / 255.0
    luma_BHW = pixels_BHWC @ _LUMA_C
    red, green, blue = (pixels_BHWC[..., colour].mean(axis=(1, 2)) for colour in range(3))
    columns = [
        luma_BHW.mean(axis=(1, 2)), luma_BHW.std(axis=(1, 2)), red - green, blue - (red + green) / 2,
        (pixels_BHWC.max(axis=3) - pixels_BHWC.min(axis=3)).mean(axis=(1, 2)),
    ]  # fmt: skip
    return np.column_stack([*columns, _spectral(luma_BHW), _bars(images_BHWC)])


def _spectral(luma_BHW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slope, shares of octaves and shares of orientations, (B, 1 + octaves + orientations)."""
    B, H, W = luma_BHW.shape
    window_HW = np.outer(np.hanning(H), np.hanning(W))
    mean_B11 = (luma_BHW * window_HW).sum(axis=(1, 2), keepdims=True) / window_HW.sum()
    power_Bf = (np.abs(np.fft.fft2((luma_BHW - mean_B11) * window_HW)) ** 2).reshape(B, -1)
    fy_HW, fx_HW = np.meshgrid(np.fft.fftfreq(H) * H, np.fft.fftfreq(W) * W, indexing="ij")
    radius_f = np.hypot(fy_HW, fx_HW).ravel()
    nyquist = min(H, W) / 2
    seen_f = (radius_f >= 1) & (radius_f <= nyquist)
    power_Bf, radius_f = power_Bf[:, seen_f], radius_f[seen_f]
    octave_f = np.minimum(np.floor(np.log2(nyquist / radius_f)).astype(int), _BANDS - 1)
    # a wave's structure runs across it: one that goes up and down is horizontal; y points downwards
    angle_f = (np.degrees(np.arctan2(-fy_HW, fx_HW)).ravel()[seen_f] + 90) % 180
    orientation_f = np.round(angle_f / (180 / _ORIENTATIONS)).astype(int) % _ORIENTATIONS
    shares = [_shares(power_Bf, octave_f, _BANDS), _shares(power_Bf, orientation_f, _ORIENTATIONS)]
    return np.concatenate([_slope(power_Bf, radius_f)[:, None], *shares], axis=1)


def _shares(power_Bf: NDArray[np.float64], kind_f: NDArray[np.int_], kinds: int) -> NDArray[np.float64]:
    """Share of the power in each kind of frequency; 0 throughout without power."""
    sums = power_Bf @ (kind_f[:, None] == np.arange(kinds))
    all_B1 = sums.sum(axis=1, keepdims=True)
    return np.where(all_B1 > _NO_POWER, sums / np.maximum(all_B1, _NO_POWER), 0.0)


def _slope(power_Bf: NDArray[np.float64], radius_f: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares slope (B,) of log power on log frequency, each whole frequency's mean power once."""
    ring_f = np.round(radius_f).astype(int) - 1
    count_r = np.bincount(ring_f)
    mean_Br = power_Bf @ (ring_f[:, None] == np.arange(len(count_r))) / count_r
    x_r = np.log(np.arange(1, len(count_r) + 1))
    x_r -= x_r.mean()
    whole_B1 = power_Bf.sum(axis=1, keepdims=True)
    y_Br = np.log(np.maximum(mean_Br, _NO_POWER * np.maximum(whole_B1, _NO_POWER)))
    return np.where(whole_B1[:, 0] > _NO_POWER, y_Br @ x_r / (x_r @ x_r), 0.0)


def _bars(images_BHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share (B,) of each image in uniform rows from top and bottom, and of the rest in uniform columns."""
    shares = []
    for image_HWC in images_BHWC.astype(np.int16):
        top, bottom = _runs(image_HWC)
        inner_HWC = image_HWC[top : len(image_HWC) - bottom]
        left, right = _runs(inner_HWC.transpose(1, 0, 2)) if len(inner_HWC) else (0, 0)
        inner = len(inner_HWC) * (image_HWC.shape[1] - left - right)
        shares.append(1 - inner / (image_HWC.shape[0] * image_HWC.shape[1]))
    return np.array(shares)


def _runs(rows_HWC: NDArray[np.int16]) -> tuple[int, int]:
    """How many rows at the beginning, and at the end, hold one colour; all, and none, if all do."""
    flat_H = (np.ptp(rows_HWC, axis=1) <= _FLAT).all(axis=1)
    if flat_H.all():
        return len(flat_H), 0
    return int(flat_H.argmin()), int(flat_H[::-1].argmin())
