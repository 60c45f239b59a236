"""A figure as the address of an image within a page: in the page's colours, light or dark, and small."""

import re
from urllib.parse import quote

from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from sweeps.show.dark import on_dark
from sweeps.show.draw import render

_PLAIN = " '!$()*+,-./:;=?@[]_~|{}^`\\"  # what an attribute between double quotes may hold as it is: no " < > &
_COLOR = r"(?<=: )#[0-9a-f]{6}\b"
_STYLE = '<style type="text/css">'


def address(figure: Figure) -> Markup:
    """``data:image/svg+xml,…`` in about a third of the bytes that base64 takes: coordinates are rounded to 0.1 points.

    Its colours are for the ``color-scheme`` of where it stands, but for a figure with pixels, which stays light.
    """
    svg = _small(render(figure, "svg").decode())
    if "data:image" not in svg:
        svg = _adaptive(svg)
    return Markup("data:image/svg+xml,") + Markup(quote(svg.replace('"', "'"), safe=_PLAIN))


def _adaptive(svg: str) -> str:
    """With each colour a variable, whose value is the colour or what :func:`sweeps.show.dark.on_dark` makes of it."""
    names = {color: f"--c{i}" for i, color in enumerate(dict.fromkeys(re.findall(_COLOR, svg)))}
    svg = re.sub(_COLOR, lambda color: f"var({names[color[0]]})", svg)
    values = "".join(f"{name}:{_both(color)};" for color, name in names.items())
    root = (
        f":root{{color-scheme:light dark;fill:{_both('#000000')};{values}}}"  # what has no colour of its own is black
    )
    return svg.replace(_STYLE, _STYLE + root, 1)


def _both(color: str) -> str:
    return f"light-dark({color},{to_hex(on_dark(color))})"


def _small(svg: str) -> str:
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bd="([^"]*)"', _path, svg)
    svg = re.sub(r'transform="translate\(([\d.-]+) 0\)"(?=/>)', r'x="\1"', svg)  # of a letter within its line
    svg = re.sub(r'(?<=\b[xy]=")-?\d+\.\d+', lambda found: _rounded(found[0], 1), svg)
    svg = svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    names = {name: f"{i:x}" for i, name in enumerate(dict.fromkeys(re.findall(r'(?:href="|url\()#([\w.-]+)', svg)))}
    svg = re.sub(r'(?<=href="#)[\w.-]+|(?<=url\(#)[\w.-]+', lambda found: f"i{names[found[0]]}", svg)
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="i{names[found[1]]}"' if found[1] in names else "", svg)
    return re.sub(r">\s+<", "><", re.sub(r"\s+", " ", svg))


def _path(found: re.Match[str]) -> str:
    """Straight lines are seen at no finer step than 0.1 points, and shortest from point to point; curves stay."""
    text = found[1]
    if re.search(r"[^MLz\s\d.-]", text):
        return f'd="{" ".join(_rounded(word, 2) for word in text.split())}"'
    parts, at, command = [], (0, 0), ""
    for name, *place in re.findall(r"([ML]) (\S+) (\S+)|z", text):
        if not name:
            parts.append("z")
            continue
        point = round(10 * float(place[0])), round(10 * float(place[1]))  # in tenths, so that no error adds up
        x, y = point if name == "M" else (point[0] - at[0], point[1] - at[1])
        parts.append(("M" if name == "M" else "l" if command != "L" else " ") + f"{_tenths(x)} {_tenths(y)}")
        at, command = point, name
    return f'd="{"".join(parts).replace(" -", "-")}"'


def _tenths(number: int) -> str:
    return re.sub(r"^(-?)0(?=\.)", r"\1", f"{number / 10:g}")


def _rounded(word: str, digits: int) -> str:
    return f"{float(word):.{digits}f}".rstrip("0").rstrip(".") if "." in word else word
