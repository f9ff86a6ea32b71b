"""What the scanner does to the anatomy: blur, slice thickness, noise, streaks, and the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from .canvas import Canvas
from .labels import LABEL


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel.

    blur_mm: SD of the in-plane point spread. sharpen: weight of unsharp masking. noise_peak: spatial frequency
    (1/mm) where its noise is strongest. noise_factor: noise against the soft kernel at the same dose.
    """

    name: str
    blur_mm: float
    sharpen: float
    noise_peak: float
    noise_factor: float


KERNELS = {
    "soft": Kernel("SOFT", 0.62, 0.0, 0.26, 1.0),
    "lung": Kernel("LUNG", 0.38, 0.7, 0.50, 2.3),
}
SHELL_HU = 350.0
"""Skin of the table."""

SLICE_SD = 0.36
"""SD of the slice profile as a fraction of the slice thickness (a rectangle has 0.29, a triangle 0.41)."""


def blur(hu: np.ndarray, spacing_mm: tuple[float, float, float], kernel: Kernel) -> np.ndarray:
    """The anatomy as the scanner resolves it; in place."""
    i, j, _ = spacing_mm
    for axis, sigma in ((2, kernel.blur_mm / i), (1, kernel.blur_mm / j), (0, SLICE_SD)):
        ndimage.gaussian_filter1d(hu, sigma, axis=axis, output=hu, mode="nearest", truncate=3.0)
    if kernel.sharpen:
        for section in hu:
            smooth = ndimage.gaussian_filter(section, (1.3 / j, 1.3 / i), mode="nearest", truncate=3.0)
            section += np.float32(kernel.sharpen) * (section - smooth)
    return hu


def add_noise(hu: np.ndarray, spacing_mm: tuple[float, float, float], kernel: Kernel, noise_hu: float, solid: np.ndarray,
              rng: np.random.Generator) -> None:
    """Add noise as filtered back-projection leaves it, in place.

    Its power rises with frequency up to the kernel's peak and neighbouring slices share a third of it. It is
    strongest in the middle of the body and in wide slices. solid: (K,) area of the body in each slice relative
    to the largest.
    """
    _, rows, columns = hu.shape
    fy, fx = fft.fftfreq(rows, spacing_mm[1])[:, None], fft.rfftfreq(columns, spacing_mm[0])[None]
    f = np.hypot(fy, fx)
    gain = (np.sqrt(f) * np.exp(-0.25 * (f / kernel.noise_peak) ** 2)).astype(np.float32)
    full = np.repeat(gain ** 2, 2, axis=1)
    gain *= noise_hu * kernel.noise_factor / np.sqrt(full.mean())
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    place = (0.55 + 0.45 * np.exp(-1.2 * (x * x + y * y))).astype(np.float32)
    before = np.zeros((rows, columns), np.float32)
    for k in range(len(hu)):
        white = rng.standard_normal((rows, columns), dtype=np.float32)
        own = fft.irfft2(fft.rfft2(white) * gain, s=(rows, columns))
        hu[k] += (own + 0.5 * before) * np.float32(0.894) * (place * np.float32(0.6 + 0.45 * solid[k]))
        before = own


def add_streaks(hu: np.ndarray, spacing_mm: tuple[float, float, float], wide: np.ndarray, amplitude_hu: float,
                rng: np.random.Generator) -> None:
    """Horizontal streaks where the shoulders starve the detector, in place. wide: (K,) 0..1, how wide the bone is."""
    for k in np.flatnonzero(wide > 0.05):
        rows = rng.standard_normal((hu.shape[1], 1 + hu.shape[2] // 24), dtype=np.float32)
        rows = ndimage.gaussian_filter1d(rows, 0.6 / spacing_mm[1], axis=0)
        line = ndimage.zoom(rows, (1, hu.shape[2] / rows.shape[1]), order=1)[:, : hu.shape[2]]
        hu[k] += line * np.float32(amplitude_hu * wide[k])


def add_metal_streaks(canvas: Canvas, screws: list[np.ndarray], rng: np.random.Generator) -> None:
    """Bright and dark rays that leave metal in its slices."""
    z, y, x = canvas.axes
    rays = [(rng.uniform(0, 6.3, 9), rng.integers(2, 24, 9)) for _ in screws]
    for ends, (phases, counts) in zip(screws, rays, strict=True):
        centre = ends.mean(axis=0)
        low, high = ends[:, 2].min() - 3, ends[:, 2].max() + 3
        angle = np.arctan2(y[:, None] - centre[1], x[None] - centre[0])
        distance = np.hypot(y[:, None] - centre[1], x[None] - centre[0])
        pattern = sum(np.cos(n * angle + p) for n, p in zip(counts, phases, strict=True)) / 3
        pattern = (pattern * 140 * np.exp(-distance / 60)).astype(np.float32)
        for k in np.flatnonzero((z > low) & (z < high)):
            canvas.hu[k] += pattern


def paint_couch(canvas: Canvas, back_y_mm: float) -> None:
    """A curved table of thin carbon fibre over foam, and the sheet of a mattress, under the patient."""
    gap, radius = 13.0, 620.0
    for box in canvas.slabs(np.array([-225.0, back_y_mm - 30, -1e5]), np.array([225.0, back_y_mm + 90, 1e5])):
        y, x = np.broadcast_to(box.y[0], box.shape[1:]), np.broadcast_to(box.x[0], box.shape[1:])
        top = back_y_mm + gap - x * x / (2 * radius)
        bottom = top + 34 - (x / 215) ** 2 * 20
        inside = np.maximum(np.maximum(top - y, y - bottom), np.abs(x) - 212)
        flat = np.where(np.abs(inside) < 30, inside, np.sign(inside) * 30).astype(np.float32)[None]
        free = (LABEL["background"],)
        canvas.paint(box, np.broadcast_to(flat, box.shape), -880.0, LABEL["couch"], free)
        shell = np.abs(flat + 0.9) - 0.9
        canvas.paint(box, np.broadcast_to(shell, box.shape), SHELL_HU, LABEL["couch"], (*free, LABEL["couch"]))
