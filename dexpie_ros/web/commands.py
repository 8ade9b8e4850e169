"""`dexpie web [DIR]`: the page to watch, judge and annotate experience, on this machine."""

from __future__ import annotations

import argparse
import ipaddress
import secrets
import socket
from pathlib import Path
from typing import Any

DEFAULT_ROOT = "outputs"
DEFAULT_PORT = 8600


class WebError(ValueError):
    """The page cannot be served; the message says what to do."""


def add_parser(groups: Any) -> None:
    parser = groups.add_parser(
        "web",
        help="a page to watch, judge and annotate episodes",
        description="Serves the episodes below DIR on this machine. The printed address holds a "
        "token; without it nobody gets in.",
    )
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path(DEFAULT_ROOT), metavar="DIR",
        help=f"where episodes lie, at any depth (default: {DEFAULT_ROOT})",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=None, help=f"default: {DEFAULT_PORT}, or a free one; 0: any"
    )
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address of another interface; 0.0.0.0: all. Unencrypted: only in a trusted network",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, action="append", default=[], metavar="DIR",
        help="where reports lie besides DIR (default: outputs)",
    )  # fmt: skip
    parser.add_argument(
        "--plan", type=Path, default=None, metavar="FILE",
        help="a session's plan (YAML): the table shows what is still wanted of every stage",
    )  # fmt: skip
    parser.add_argument(
        "--foxglove-layout", type=Path, default=None, metavar="FILE",
        help="write a layout for Foxglove (JSON, to be imported there) and end",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    if options.foxglove_layout is not None:
        return _write_layout(options.foxglove_layout)
    try:
        import uvicorn

        from dexpie_ros.web.app import make_app
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette", "anyio"):
            raise
        raise WebError(f"{error.name} is missing; pip install 'dexpie_ros[web]'") from None
    from dexpie_ros.web.library import Library
    from dexpie_ros.web.quotas import read_plan
    from dexpie_ros.web.results import Results

    if not options.root.is_dir():
        raise WebError(f"{options.root}: no such directory; name the one where episodes lie")
    plan = None if options.plan is None else read_plan(options.plan)
    library = Library(options.root)
    count = len(library.entries())
    others = options.results or [Path(DEFAULT_ROOT)]
    results = Results([options.root, *(folder for folder in others if folder.is_dir())])
    token = secrets.token_urlsafe(24)
    listening = listen(options.host, options.port)
    port = listening.getsockname()[1]
    app = make_app(library, results, token, cookie=f"dexpie_{port}", plan=plan)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2
        )
    )
    print(f"{count} episodes below {options.root}")
    print(f"Open  {address(options.host, port, token)}", flush=True)
    if not is_loopback(options.host):
        print(
            "Whoever in this network learns this address can look and annotate; nothing is encrypted.",
            flush=True,
        )
    print("Ctrl-C ends.", flush=True)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    return 0


def _write_layout(path: Path) -> int:
    from dexpie_ros import config
    from dexpie_ros.web.foxglove import layout

    try:
        config.write_json(path, layout())
    except OSError as error:
        raise WebError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"{path}: in Foxglove choose Layouts, Import from file")
    return 0


def listen(host: str, port: int | None) -> socket.socket:
    """A bound socket; without a port named, the usual one or, if it is taken, any free one."""
    wanted = [DEFAULT_PORT, 0] if port is None else [port]
    problem = ""
    for number in wanted:
        try:
            family, _, _, _, where = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, socket.SOCK_STREAM)
        except (OSError, OverflowError) as error:
            raise WebError(f"--host {host}, --port {number}: {error}") from None
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(128)
        except (OSError, OverflowError) as error:
            listening.close()
            problem = f"{host}:{number}: {error}; choose another with --port"
            continue
        return listening
    raise WebError(problem)


def address(host: str, port: int, token: str) -> str:
    """What a person opens."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/?token={token}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
