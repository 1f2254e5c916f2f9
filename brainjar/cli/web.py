"""brainjar web [--host ADDRESS] [--port N] [--socket PATH] [--control]
brainjar web token [--rotate]

The dashboard of a jar: an API with live events and metrics, by default at 127.0.0.1:8095 and for looking only. `token` prints what it is
opened with; --rotate makes another, which ends every session when the dashboard is started again. --control: it may also say, pause,
resume, restart and kill. Beyond loopback use a proxy that speaks HTTPS in front of it, and name it: --name dashboard.example.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brainjar.cli import which
from brainjar.errors import UsageError

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers

HOST, PORT = "127.0.0.1", 8095
NEEDS: Final = ("starlette", "uvicorn", "prometheus_client")


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "web", "the dashboard of a jar", __doc__)
    parser.add_argument("what", nargs="?", choices=("token",), help="print the token instead")
    parser.add_argument("--rotate", action="store_true", help="of token: make another")
    parser.add_argument("--host", default=HOST, metavar="ADDRESS", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help="default: %(default)s")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="a unix socket instead")
    parser.add_argument("--name", action="append", default=[], metavar="HOST", help="it is also reached by this name")
    parser.add_argument("--control", action="store_true", help="it may also act, not only look")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    state_dir = which.state_dir(args)
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise UsageError(f"{', '.join(missing)} is not here; run: {sys.executable} -m pip install 'brainjar[web]'")
    from brainjar.web import access

    if args.what == "token":
        print(access.rotate(state_dir) if args.rotate else access.token(state_dir))
        return 0
    from brainjar.web.app import Settings
    from brainjar.web.server import is_loopback, serve

    if args.socket is None and not is_loopback(args.host) and not args.name:
        raise UsageError(f"--host {args.host} is beyond loopback: say by what name it is reached there, --name HOST")
    hosts = Settings(state_dir=state_dir).hosts | {name.casefold() for name in args.name}
    settings = Settings(state_dir=state_dir, hosts=frozenset(hosts), control=args.control)
    where = f"unix:{args.socket}" if args.socket is not None else f"http://{args.host}:{args.port}"
    print(f"brainjar web: {where}; the token: brainjar web token --state-dir {state_dir}", file=sys.stderr)
    serve(settings, host=args.host, port=args.port, path=args.socket)
    return 0
