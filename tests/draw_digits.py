"""Digits drawn by strokes of a round pen, in four looks; one of each is in tests/digits: python tests/draw_digits.py"""

import math
from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).with_name("digits")


def arc(x, y, rx, ry, start, end):
    """Points on an ellipse from ``start`` to ``end``, in degrees clockwise from the right."""
    steps = [start + (end - start) * i / 40 for i in range(41)]
    return [(x + rx * math.cos(math.radians(t)), y + ry * math.sin(math.radians(t))) for t in steps]


DIGITS = {  # strokes in a box of 1 × 1
    0: [arc(0.5, 0.5, 0.28, 0.4, -90, 270)],
    1: [[(0.42, 0.22), (0.54, 0.1), (0.52, 0.9)]],
    2: [[*arc(0.5, 0.3, 0.25, 0.2, -170, 30), (0.24, 0.88), (0.8, 0.86)]],
    3: [[*arc(0.47, 0.3, 0.24, 0.2, -160, 90), *arc(0.47, 0.69, 0.27, 0.2, -90, 160)]],
    4: [[(0.3, 0.12), (0.22, 0.52), (0.78, 0.5)], [(0.66, 0.2), (0.6, 0.9)]],
    5: [[(0.76, 0.12), (0.36, 0.13), (0.31, 0.46), *arc(0.48, 0.66, 0.26, 0.23, -110, 150)]],
    6: [[(0.66, 0.1), (0.4, 0.34), *arc(0.5, 0.67, 0.23, 0.22, 180, -180)]],
    7: [[(0.22, 0.14), (0.78, 0.14), (0.44, 0.9)]],
    8: [[*arc(0.5, 0.3, 0.2, 0.19, 60, -240), *arc(0.5, 0.69, 0.24, 0.2, -60, 240), (0.6, 0.46)]],
    9: [[*arc(0.5, 0.32, 0.22, 0.21, 0, -360), (0.7, 0.34), (0.6, 0.9)]],
}


def drawn(digit, *, size, pen, ink, paper, slant=0.0, mode="L"):
    """An image of ``size`` (width, height), drawn at four times that and reduced."""
    width, height = (4 * n for n in size)
    image = Image.new(mode, (width, height), paper)
    draw = ImageDraw.Draw(image)
    side, r = 0.8 * min(width, height), 2 * pen
    for stroke in DIGITS[digit]:
        points = [(width / 2 + (x - 0.5 - slant * (y - 0.5)) * side, height / 2 + (y - 0.5) * side) for x, y in stroke]
        draw.line(points, ink, width=4 * pen, joint="curve")
        for x, y in points:
            draw.ellipse((x - r, y - r, x + r, y + r), ink)
    return image.resize(size, Image.Resampling.LANCZOS)


STYLES = {
    "marker": {"size": (120, 120), "pen": 11, "ink": 20, "paper": 250},
    "chalk": {"size": (90, 140), "pen": 8, "ink": 235, "paper": 35, "slant": 0.12},
    "crayon": {"size": (200, 150), "pen": 13, "ink": (190, 40, 30), "paper": (245, 240, 220), "mode": "RGB"},
    "sticker": {"size": (64, 64), "pen": 6, "ink": (20, 30, 90, 255), "paper": (0, 0, 0, 0), "mode": "RGBA"},
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, digit in zip(STYLES, (4, 9, 2, 5), strict=True):
        drawn(digit, **STYLES[name]).save(FOLDER / f"{name}-{digit}.png", optimize=True)
