"""The page on localhost, built again while runs train.

    Pages   the current page, built only when the results tree has changed
    Tree    whether it has changed
    Server  HTTP: only GET and HEAD, and nothing without the token in the address

The page is the one that :mod:`sweeps.show.report` writes, with one more script (serve.js). It asks for ``version``
every second, and reloads the page when it has changed; only for this does the page's policy let it connect, to its own
origin. While no browser asks, nothing is built.
"""

import contextlib
import errno
import hashlib
import html
import ipaddress
import secrets
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np

from sweeps.read.snapshot import scanned
from sweeps.runs.errors import DamagedRun, InputError, printable
from sweeps.runs.files import listed
from sweeps.search import record
from sweeps.show.listing import Watch
from sweeps.show.report import source

_REST = 4  # times as long as building took, before the tree is checked again: training needs the processor
_LEAST_REST = 1.0  # seconds
_PATIENCE = 60  # seconds for a client to send its request


class Page(NamedTuple):
    """What is answered to ``/``."""

    status: HTTPStatus
    content: bytes
    version: str
    policy: str
    """Content-Security-Policy of the header, beside the page's own."""


class Pages:
    """The current page; for any number of threads, of which one builds.

    Args:
        build: the page's HTML; raises InputError with a message to show instead of the page.
        fingerprint: changes whenever ``build`` would return another page.
    """

    def __init__(self, build: Callable[[], str], fingerprint: Callable[[], str]) -> None:
        self._build, self._fingerprint = build, fingerprint
        self._lock = threading.Lock()
        self._page: Page | None = None
        self._seen, self._next = "", 0.0

    def newest(self) -> Page:
        """Build it now if needed; while another thread builds, return the previous one."""
        page = self._page
        if self._lock.acquire(blocking=page is None):
            try:
                page = self._page if self._page and time.monotonic() < self._next else self._look()
            finally:
                self._lock.release()
        assert page is not None
        return page

    def _look(self) -> Page:
        begin = time.monotonic()
        seen = self._fingerprint()
        if self._page is None or seen != self._seen:
            self._page, self._seen = self._built(), seen
        end = time.monotonic()
        self._next = end + max(_LEAST_REST, _REST * (end - begin))
        return self._page

    def _built(self) -> Page:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # as in every command, but here it is a thread's own
                return _live(self._build())
        except (InputError, DamagedRun, OSError) as error:
            return _instead(str(error))
        except Exception as error:  # a defect; perhaps of one study or run, so the next page may work
            traceback.print_exc()
            return _instead(f"{type(error).__name__}: {error}")


class Tree:
    """The page's sources, without reading them: calling it returns a text that changes with any of them.

    Args:
        others: files beside the results tree ``out``.
    """

    def __init__(self, out: Path, others: Sequence[Path] = ()) -> None:
        self._out, self._others, self._watch = out, others, Watch(out)

    def __call__(self) -> str:
        try:
            runs = scanned(self._out)
            states = [status and status.state for status in self._watch.look().values()]  # a process may have died
        except InputError as error:
            runs, states = str(error), []
        return f"{runs} {states} {[_stamp(path) for path in (*self._sweeps(), *self._others)]}"

    def _sweeps(self) -> list[Path]:
        """Their files that the page, or a command's ``--sweep``, rests on."""
        with contextlib.suppress(InputError, OSError):
            sweeps = listed(self._out, "sweeps")
            return [Path(sweep.path, name) for sweep in sweeps for name in (record.FILE, "manifest.json")]
        return []


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_size, info.st_ino


def _live(page: str) -> Page:
    """The page with the script, and a policy that allows it."""
    script = _script()
    before, directive, rest = page.partition("script-src ")  # of the policy, which comes before any text of a run
    body, end, after = rest.rpartition("</body>")
    if not directive or not end:
        raise ValueError("the page has no policy, or no end")
    version = _version(page)
    allowed = f"connect-src 'self'; {directive}{source(script)} "
    text = f"{before}{allowed}{body}{_element(script, version)}{end}{after}"
    return Page(HTTPStatus.OK, text.encode(), version, "frame-ancestors 'none'")


def _instead(message: str) -> Page:
    """A page that says why there is none, and reloads when there is one."""
    script, style = _script(), "body { font: 1rem/1.5 system-ui; margin: 3rem; color-scheme: light dark }"
    said = html.escape("\n".join(map(printable, message.split("\n"))))
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Sweeps</title><style>{style}</style>'
        f"<h1>There is no page yet</h1><p>{said}</p><p>It will appear here as soon as that has changed.</p>"
    )
    version = _version(text)
    policy = (
        f"default-src 'none'; connect-src 'self'; script-src {source(script)}; style-src {source(style)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(HTTPStatus.SERVICE_UNAVAILABLE, (text + _element(script, version)).encode(), version, policy)


def _script() -> str:
    return (resources.files("sweeps.show") / "serve.js").read_text("utf-8")


def _element(script: str, version: str) -> str:
    return f'<script data-version="{version}">{script}</script>'


def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Server(ThreadingHTTPServer):
    """Listens on one address from its creation.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: the port is in use, or there is no such host here.
    """

    daemon_threads = True  # Ctrl-C ends the process, also while they answer

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.pages, self.host, self.token = pages, host, secrets.token_urlsafe(24)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, _, _, _, address = found[0]
            super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                why = f"cannot be listened on at {host} ({error.strerror}); give another, or 0 for any that is free"
                raise InputError("--port", port, why) from None
            raise InputError("--host", host, f"cannot be listened on ({error.strerror})") from None

    def server_bind(self) -> None:
        """Without HTTPServer's lookup of the host's full name, which may wait for a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        host = "localhost" if ipaddress.ip_address(str(self.server_address[0])).is_unspecified else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/?token={self.token}"

    def is_ours(self, host: str) -> bool:
        """Whether a request's Host cannot be another site's name that was rebound to our address."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in {"localhost", self.host.lower(), socket.gethostname().lower()}
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is not an error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request: its host, then its method, then its token, then its path."""

    server: Server
    timeout = _PATIENCE

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        if not self.server.is_ours(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "this is not a name of this server; open the address that it printed")
        elif self.command not in ("GET", "HEAD"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "it can only be read", Allow="GET, HEAD")
        elif not self._has_token(query):
            self._refuse(HTTPStatus.FORBIDDEN, "the address must have the token that the server printed")
        elif path == "/":
            page = self.server.pages.newest()
            self._send(page.status, page.content, "text/html", **{"Content-Security-Policy": page.policy})
        elif path == "/version":
            self._send(HTTPStatus.OK, self.server.pages.newest().version.encode(), "text/plain")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def _has_token(self, query: str) -> bool:
        given = parse_qs(query).get("token", [""])[-1]
        return secrets.compare_digest(given.encode(), self.server.token.encode())

    def _refuse(self, status: HTTPStatus, why: str, **headers: str) -> None:
        self._send(status, f"{status.value} {status.phrase}: {why}\n".encode(), "text/plain", **headers)

    def _send(self, status: HTTPStatus, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        headers |= {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def version_string(self) -> str:
        """The product, without its version."""
        return "sweeps"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the token is in every line of it."""


def serve(server: Server) -> None:
    """Until Ctrl-C."""
    with server:
        print(f"{server.url}\nread-only, renewed while runs train; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", flush=True)
            raise
