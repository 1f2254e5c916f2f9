"""brainjar deaths [--json]

Every death on record, oldest first, from the jar's ledger; the jar need not run.
--json: one object a line, {"persona", "life", "at", "cause", "signal", "exit_code", "evidence", "last_words", ...}.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers
    from brainjar.messages import Death


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "deaths", "the ledger: every death", __doc__)
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import sqlite3

    import msgspec

    from brainjar.errors import BrainjarError
    from brainjar.ledger import read_deaths
    from brainjar.messages import encode

    path = which.state_dir(args) / "ledger.db"
    try:
        deaths = read_deaths(path)
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise BrainjarError(f"{path}: the ledger cannot be read ({error}); the next start of the jar sets a damaged one aside") from None
    for death in deaths:
        print(encode(death).decode() if args.json else _line(death))
    return 0


def _line(death: Death) -> str:
    from brainjar.view.words import clean, day, span

    how = f"signal {death.signal}" if death.signal is not None else f"exit {death.exit_code}" if death.exit_code is not None else ""
    facts = ", ".join(fact for fact in (how, f"lived {span(death.age_s)}", f"{death.tokens} tokens") if fact)
    line = f"{day(death.at)}  {death.persona}  life {death.life}  {clean(death.cause)} ({facts})"
    words = clean(death.last_words).strip()
    return f'{line}  last words: "{words}"' if words else line
