"""Read the config anew for a running jar: `python -m brainjar.cli.reread` with the options of `supervise`, for `brainjar reload`.

In a process of its own: it checks all that a start would check, the plan included, and that takes longer than a supervisor may
be away. Its answer, one `Reread`, goes into descriptor 3.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from brainjar import config as configs
from brainjar.cli import planning, supervise, trials
from brainjar.errors import BrainjarError
from brainjar.supervisor.reload import Reread, encode

ANSWER_FD = 3


def main() -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    supervise.add_parser(commands)
    args = commands.choices["supervise"].parse_args(sys.argv[1:])
    answer = Reread()
    try:
        answer = Reread(config=_config(args))
    except BrainjarError as error:
        answer = Reread(error=str(error), exit=error.exit_code)
    os.write(ANSWER_FD, encode(answer))


def _config(args: argparse.Namespace) -> configs.Config:
    path: Path = args.config
    config = configs.load(path, args.overrides, model=args.model, state_dir=args.state_dir)
    planning.check_fetched(config)
    headers = planning.headers(config)
    config = trials.known(config, headers)
    supervise.checked_plan(config, headers, force=args.force)
    return config


if __name__ == "__main__":
    main()
