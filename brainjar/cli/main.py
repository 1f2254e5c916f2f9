"""`brainjar`: the parser, and the one place where a failure becomes a line on stderr and an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Final

from brainjar import __version__
from brainjar.errors import BrainjarError

COMMANDS: Final = (
    "init",
    "supervise",
    "status",
    "top",
    "web",
    "kill",
    "restart",
    "pause",
    "resume",
    "say",
    "whisper",
    "stop",
    "reload",
    "upgrade",
    "events",
    "deaths",
    "thoughts",
    "replay",
    "report",
    "export",
    "import_",
    "logs",
    "models",
    "plan",
    "drill",
    "doctor",
    "systemd",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """One line, and where to read more."""
        sys.stderr.write(f"{self.prog}: {message}; see {self.prog} --help\n")
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="brainjar", description="Keep local-LLM personas alive in one jar: supervised, capped, killed and resurrected.")
    top.add_argument("--version", action="version", version=f"brainjar {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name in COMMANDS:
        importlib.import_module(f"brainjar.cli.{name}").add_parser(commands)
    return top


def _open_standard_fds() -> None:
    """Started with one of them closed, the next file that is opened would take its place, and be written to as a terminal."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main(argv: list[str] | None = None) -> int:
    _open_standard_fds()
    args = parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except BrainjarError as error:
        print(f"brainjar {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has enough; and nothing may be flushed into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:  # what no command foresaw: a limit on descriptors, a disk that fails
        where = f"{error.filename}: " if error.filename else ""
        print(f"brainjar {args.command}: {where}{error.strerror or error}", file=sys.stderr)
        return 1
