"""Make docs/pictures from real runs: the terminal in the middle of README's sweep, and the page of its runs.

    python scripts/pictures.py             # trains the sweep in a temporary directory, then makes both
    python scripts/pictures.py --page OUT  # the page of a results tree that exists, alone

Needs Chromium.
"""

import argparse
import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SWEEP = "mlp-train --multirun activ=relu,gelu,sigmoid lr=0.1,0.01 seed=0,1,2 epochs=5"
COLUMNS = 100
BLACK, WHITE = (30, 34, 42), (214, 218, 226)
COLOURS = [(224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194)]
THEME = TerminalTheme(BLACK, WHITE, [BLACK, *COLOURS, WHITE])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, metavar="OUT", help="a results tree: make the page's picture alone")
    out = parser.parse_args().page
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if out is None:
            written = written_to_a_terminal(SWEEP, Path(folder))
            later = (screen for screen in screens(written) if runs_done(screen) >= 1 / 2)
            half = next(screen for screen in later if "starting" not in screen)
            (PICTURES / "terminal.svg").write_text(svg(f"$ {SWEEP}\n{half}"))
            out = Path(folder) / "outputs"
        screenshot(out, PICTURES / "page.png")


def written_to_a_terminal(command: str, cwd: Path) -> str:
    """Run a command in a pseudo-terminal, and return its output with all control sequences."""
    main_end, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    _, *rest = shlex.split(command)
    words = [sys.executable, "-m", "mlp.train", *rest]
    env = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=cwd, env=env, stdin=its_end, stdout=its_end, stderr=its_end)
    os.close(its_end)
    written = b""
    try:
        while chunk := os.read(main_end, 65536):
            written += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    if process.wait():
        sys.exit(written.decode())
    return written.decode()


def screens(written: str) -> Iterator[str]:
    """The lines on the terminal each time that the live display is about to be drawn again."""
    lines = [""]
    for part in re.split(r"(\r?\n|\r|\x1b\[2K|\x1b\[1A|\x1b\[\?25[lh])", written):
        match part:
            case "\r\n" | "\n":
                lines.append("")
            case "\r":
                yield "\n".join(lines).rstrip()
            case "\x1b[2K":
                lines[-1] = ""
            case "\x1b[1A":
                lines.pop()
            case _ if not part.startswith("\x1b[?25"):
                lines[-1] += part


def runs_done(screen: str) -> float:
    """The share of the sweep's runs that the live display counts as done."""
    counts = re.findall(r"(\d+)/(\d+) runs", screen)
    return int(counts[-1][0]) / int(counts[-1][1]) if counts else 0


def svg(screen: str) -> str:
    """A terminal's screen as a picture that fetches no font."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen))
    drawn = console.export_svg(title="", theme=THEME, unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def screenshot(out: Path, picture: Path) -> None:
    """The top of the page of a results tree, in at most 256 colours."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: needs Chromium for the picture of the page")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "sweeps", "report", "--out", str(out)], env=env, check=True)
    page = (out / "report" / "index.html").resolve().as_uri()
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,1340", "--virtual-time-budget=5000"]
    subprocess.run([chromium, *flags, f"--screenshot={picture}", page], check=True, stderr=subprocess.DEVNULL)
    Image.open(picture).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)


if __name__ == "__main__":
    main()
