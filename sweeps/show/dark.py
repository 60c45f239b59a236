"""Draw any figure for a dark page.

A colour's contrast with the dark page follows from its contrast with the white one, and so does that of any two
colours: strong colours stay strong, quiet ones quiet, and a number in a cell stays readable. The larger values of an
ordered key still stand out more, and so are lighter.
"""

import colorsys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import Colormap, ListedColormap, to_rgb, to_rgba_array
from matplotlib.figure import Figure

PAGE = "#15181c"
"""The dark page's background."""

_KINDS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor", "cmap")

_MORE = 1.15
"""Exponent of a contrast on the dark page, since WCAG's ratio overstates that of dark colours."""

RGB = tuple[float, float, float]


@contextmanager
def dark(figure: Figure) -> Iterator[None]:
    """A context in which the figure has dark colours."""
    figure.draw_without_rendering()  # ticks are created when they are drawn
    artists: list[Any] = figure.findobj()
    before = [
        (getattr(artist, f"set_{kind}"), getattr(artist, f"get_{kind}")())
        for artist in artists
        for kind in _KINDS
        if hasattr(artist, f"get_{kind}") and hasattr(artist, f"set_{kind}")
    ]
    try:
        for change, value in before:
            change(_map(value) if isinstance(value, Colormap) else _colors(value))
        yield
    finally:
        for change, value in before:
            change(value)


@lru_cache(maxsize=4096)
def on_dark(color: str | RGB) -> RGB:
    """The colour of the same hue that stands out from :data:`PAGE` as ``color`` does from white."""
    if to_rgb(color) == (1, 1, 1):
        return to_rgb(PAGE)
    hue, _, saturation = colorsys.rgb_to_hls(*to_rgb(color))
    wanted = (luminance(PAGE) + 0.05) * (1.05 / (luminance(color) + 0.05)) ** _MORE - 0.05
    low, high = 0.0, 1.0
    for _ in range(16):  # luminance rises with lightness
        middle = (low + high) / 2
        is_too_dark = luminance(colorsys.hls_to_rgb(hue, middle, saturation)) < wanted
        low, high = (middle, high) if is_too_dark else (low, middle)
    return colorsys.hls_to_rgb(hue, high, saturation)


def luminance(color: str | RGB) -> float:
    """Relative luminance from 0 to 1 by WCAG 2; the contrast of two is (larger + 0.05) / (smaller + 0.05)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _colors(value: Any) -> npt.NDArray[np.float64] | Any:
    """One colour, or (n, 4) of them, in dark; transparency stays."""
    colors = np.array([[*on_dark((r, g, b)), alpha] for r, g, b, alpha in to_rgba_array(value).tolist()])
    return colors if np.ndim(value) == 2 else tuple(colors[0]) if len(colors) else value


def _map(colors: Colormap) -> Colormap:
    return ListedColormap(_colors(colors(np.arange(colors.N))))
