"""Convert image files to the form that a network was trained on.

A digit is brought into MNIST's form: light on dark, cropped, fitted into 20 × 20 with its proportions kept, its centre
of mass on pixel (14, 14) of 28 × 28 (LeCun et al., 1998); most of MNIST's own images come back bit for bit. Articles
of Fashion-MNIST fill 28 × 28, photographs for CIFAR-10 become 32 × 32 in three planes.
"""

import stat
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sweeps.runs.errors import InputError

Pixels = NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # no decoder that runs another program, as EPS's does
_MOST_PIXELS = 50_000_000  # a phone's photograph; some 200 MB while it is decoded
_LARGEST_SIDE = 1000
_FAINTEST = 16  # levels of 255 that ink must stand out from the paper, and its edges from both


def prepare(path: Path, data: str) -> Pixels:
    """An image file as one example of the dataset ``data``: (features,) uint8.

    Raises:
        InputError: it is not an image, is too large or blank, or the dataset's form is not known.
    """
    if data not in _FORMS:
        raise InputError("data", data, f"the form of its images is not known; known: {', '.join(_FORMS)}")
    try:
        return _FORMS[data](_open(path)).ravel()
    except _Blank as error:
        raise InputError("image", str(path), str(error)) from None


class _Blank(Exception):
    """The image is blank."""


def _open(path: Path) -> Image.Image:
    """Decoded, upright, RGB or RGBA, and not much larger than needed."""
    shown = str(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("image", shown, "is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about harmless oddities; sizes are checked here
            with Image.open(path, formats=_FORMATS) as image:
                width, height = image.size
                if width * height > _MOST_PIXELS:
                    raise InputError("image", shown, f"has {width} × {height} pixels; must be {_MOST_PIXELS:,} at most")
                image.load()
                upright = _eight_bits(ImageOps.exif_transpose(image))
                upright.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
                return upright
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError("image", shown, f"is not an image in a supported format: {', '.join(_FORMATS)}") from None
    except Exception as error:  # decoders raise what their libraries do: OSError, SyntaxError, struct.error, …
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise InputError("image", shown, f"cannot be read: {reason}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """RGBA if something is transparent, else RGB; more than 8 bits are scaled by the range in use."""
    if image.mode.startswith(("I", "F")):
        grey = np.nan_to_num(np.asarray(image, float))
        grey = (grey - grey.min()) * (255 / max(np.ptp(grey), 1e-9))
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _digit(image: Image.Image) -> Pixels:
    """MNIST's form."""
    small = _fit(_ink(image), 20)
    rows, columns = np.indices(small.shape)
    total = small.sum(dtype=float)
    centre = (rows * small).sum() / total, (columns * small).sum() / total
    top, left = (
        min(max(round(14 - middle), 0), 28 - length) for middle, length in zip(centre, small.shape, strict=True)
    )
    return _paste(small, top, left)


def _article(image: Image.Image) -> Pixels:
    """Fashion-MNIST's form: as large as possible, in the middle."""
    small = _fit(_ink(image), 28)
    return _paste(small, (28 - small.shape[0]) // 2, (28 - small.shape[1]) // 2)


def _photograph(image: Image.Image) -> Pixels:
    """CIFAR-10's form: the square in the middle; planes of red, green and blue."""
    square = ImageOps.fit(_opaque(image, "RGB"), (32, 32), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(square, np.uint8).transpose(2, 0, 1))


_FORMS: Mapping[str, Callable[[Image.Image], Pixels]] = {
    "mnist": _digit,
    "fashion_mnist": _article,
    "cifar10": _photograph,
}


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Without transparency: on white if what is visible is dark, on black if it is light."""
    if image.mode != "RGBA":
        return image.convert(mode)
    grey, alpha = (np.asarray(plane, float) for plane in (image.convert("L"), image.getchannel("A")))
    mean = (grey * alpha).sum() / max(alpha.sum(), 1)
    paper = Image.new("RGBA", image.size, "white" if mean < 128 else "black")
    return Image.alpha_composite(paper, image).convert(mode)


def _ink(image: Image.Image) -> Pixels:
    """Light ink on black paper, cropped to the ink: (height, width).

    The image's border tells paper from ink, and its roughness there what is still paper.
    """
    grey = np.asarray(_opaque(image, "L"), float)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = np.median(border)
    if grey.max() - paper < paper - grey.min():
        grey, paper = 255 - grey, 255 - paper
    noise = 4 * np.median(np.abs(border - np.median(border)))
    ink = np.clip(grey - paper - noise, 0, None)
    if ink.max() < _FAINTEST:
        raise _Blank("is blank: nothing stands out from its border")
    ink *= 255 / ink.max()
    inked = ink > _FAINTEST
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    cropped: Pixels = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].round().astype(np.uint8)
    return cropped


def _fit(ink: Pixels, size: int) -> Pixels:
    """The longer side becomes ``size``; thin strokes keep their brightness."""
    height, width = ink.shape
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(ink).resize(shape, Image.Resampling.LANCZOS), float)
    bright: Pixels = (small * (255 / max(small.max(), 1))).round().astype(np.uint8)
    return bright


def _paste(small: Pixels, top: int, left: int) -> Pixels:
    canvas = np.zeros((28, 28), np.uint8)
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas
