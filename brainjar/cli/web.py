"""The dashboard of a jar: a page, an API with live events, metrics. By default at 127.0.0.1:8095, and for looking only.

brainjar web token prints what it is opened with; --rotate makes another, which ends every session. brainjar web password sets a password
that may be given instead, --remove takes it away, and either ends the sessions that the one before began; there is none unless you set
one. Beyond loopback, have a proxy in front of it that speaks HTTPS, and say by what name it is reached: --name jar.example. With [web]
enabled = true the supervisor runs it.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from brainjar import web as webs
from brainjar.cli import which
from brainjar.errors import UsageError

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "web", "the dashboard of a jar", __doc__)
    parser.add_argument("what", nargs="?", choices=("token", "password"), help="print the token, or set a password, instead")
    parser.add_argument("--rotate", action="store_true", help="of token: make another")
    parser.add_argument("--remove", action="store_true", help="of password: have none")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: %(default)s")
    parser.add_argument("--port", type=_port, default=8095, metavar="N", help="default: %(default)s")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="a unix socket instead")
    parser.add_argument("--name", action="append", default=[], metavar="HOST", help="it is also reached by this name")
    parser.add_argument(
        "--proxy", action="append", default=[], metavar="ADDRESS", help="a proxy that is believed about who asks; unix: on a unix socket"
    )
    parser.add_argument("--control", action="store_true", help="it may also act, not only look")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    state_dir = which.state_dir(args)
    if (missing := webs.missing()) is not None:
        raise UsageError(missing)
    from brainjar.web import access

    match args.what:
        case "token":
            print(access.rotate(state_dir) if args.rotate else access.token(state_dir))
        case "password":
            access.set_password(state_dir, None if args.remove else _password())
        case _:
            _serve(args, state_dir)
    return 0


def _serve(args: argparse.Namespace, state_dir: Path) -> None:
    from brainjar.config import Web
    from brainjar.web.app import Settings
    from brainjar.web.server import serve

    socket = str(args.socket.absolute()) if args.socket is not None else ""
    web = Web(host=args.host, port=args.port, socket=socket, names=tuple(args.name), proxies=tuple(args.proxy), control=args.control)
    words = f"brainjar web: {web.where}  (the token: brainjar web token --state-dir {state_dir})"
    serve(Settings(state_dir=state_dir, web=web), began=lambda: print(words, file=sys.stderr))


def _password() -> str:
    """From the terminal, twice; from a pipe, its first line."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("password: ")
    if getpass.getpass("again: ") != first:
        raise UsageError("the two are not the same; nothing is changed")
    return first


def _port(text: str) -> int:
    if not (text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a port from 1 to 65535")
    return int(text)
