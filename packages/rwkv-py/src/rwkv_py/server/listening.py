"""A server that runs: where it listens, and how it ends."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from ..errors import InvalidArgumentError, RwkvError
from ..model import Model
from ..tokenizer import Tokenizer
from .app import create_app
from .settings import Settings

__all__ = ["listen", "run"]


def listen(host: str, port: int, *, open_to_others: bool) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: an address, or the name of one.
        port: 0 chooses one.
        open_to_others: whether the address may be one that other machines reach.

    Raises:
        InvalidArgumentError: it is one, and may not; or nobody can listen there.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InvalidArgumentError(
            f"host: expected an address of this machine, got {host!r}"
        ) from None
    family, _, _, _, address = found[0]
    own = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    if not (own or open_to_others):
        raise InvalidArgumentError(
            f"host: expected an address that only this machine reaches, since no key is asked for, "
            f"got {host}",
            remedy="Try --api-keys FILE, or --no-key if all who can reach it may ask",
        )
    try:
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise InvalidArgumentError(
            f"port: expected one that is free at {host}, got {port}: {error.strerror}"
        ) from None


def run(
    files: Mapping[str, Path],
    settings: Settings,
    listening: socket.socket,
    *,
    open_model: Callable[[Path], Model] = Model,
    tokenizer: Tokenizer | None = None,
    drain_seconds: int = 30,
    tell: Callable[[str], object] = print,
) -> None:
    """Serve until SIGINT or SIGTERM comes: then accept nothing more, and finish what there is.

    A second signal ends it at once.

    Args:
        files: model files by the names that clients call them.
        settings: who may ask, and how much.
        listening: where.
        open_model: opens a file.
        tokenizer: what the models' tokens stand for; None: what each says.
        drain_seconds: how long to finish what there is; after that texts are cut.
        tell: shows a line to whoever runs it.

    Raises:
        RwkvError: the one model, or the folder of states, cannot be opened.
        FileNotFoundError: one of several is not there.
    """
    for path in files.values():
        path.stat()
    failures: list[RwkvError] = []

    def opened(path: Path) -> Model:
        try:
            return open_model(path)
        except RwkvError as error:
            failures.append(error)
            raise

    app = create_app(files, settings, open_model=opened, tokenizer=tokenizer)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=drain_seconds,
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    server = _Server(config, lambda: tell(_said(listening, files)))
    ended: SystemExit | None = None
    try:
        server.run([listening])
    except SystemExit as error:  # of uvicorn, where an application cannot begin
        ended = error
    failure = next(iter(failures), getattr(app.state, "failure", None))
    if failure is not None and not server.started:
        raise failure
    if ended is not None:
        raise ended


def _said(listening: socket.socket, files: Mapping[str, Path]) -> str:
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"serving {', '.join(files)} at http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's, that ends as we say: what is asked for is done, so that ending is no failure."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], object]):
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let the first signal end it when all is done, the second at once."""

        def end(number: int, _: Any) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, end) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
