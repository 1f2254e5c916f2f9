"""The first lines of another program in the process of a supervisor: `run` takes over what was handed over.

As a module it only looks whether it could: `python -m brainjar.supervisor.takeover` reads a handover from descriptor 4 and writes a
`Checked` into 3. An upgrade has a child of the new version do that before anything is given up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import msgspec

from brainjar import __version__, gguf
from brainjar.errors import BrainjarError
from brainjar.supervisor import aside, handover
from brainjar.supervisor.handover import Unreadable
from brainjar.supervisor.loop import Supervisor
from brainjar.supervisor.premises import Premises
from brainjar.supervisor.terminal import Terminal

ANSWER_FD: Final = 3
GIVEN_FD: Final = 4


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a version says of a handover that it has read."""

    version: str = __version__
    code: str = ""
    error: str = ""
    """Why it cannot take over."""


def run(fd: int, lapped: Callable[[], None], fell_back: str) -> int:
    """Take over what is handed over in `fd`, call `lapped` when the first lap is done, and return the exit status when the jar is stopped.

    Whatever is raised before `lapped` is called has changed nothing that was handed over. `fell_back`: why the version before
    this one could not.
    """
    state = handover.read(fd)
    state.fell_back = fell_back
    config = state.config
    os.umask(0o077)
    premises = Premises(config, state.locks)
    ledger = premises.open_ledger(state.bulletin.epoch)
    ledger.take(state.ledger.queue, lasting=state.ledger.lasting)
    terminal = Terminal(state.terminal.view, premises.runtime_dir, premises.jar)
    terminal.take_over(state.terminal)
    supervisor = Supervisor(config, premises, ledger, terminal, dry_run=state.dry_run, options=state.options, state=state)

    def settled() -> None:
        for kept in state.inherited:
            try:
                os.set_inheritable(kept, False)
            except OSError:
                pass  # closed in the meantime
        os.close(fd)
        lapped()

    return supervisor.run(settled)


def main() -> None:
    try:
        state = handover.read(GIVEN_FD)
        for model in state.config.models:
            gguf.read(model.path)
        answer = Checked(code=aside.mark())
    except (Unreadable, BrainjarError, OSError) as error:
        answer = Checked(error=str(error))
    os.write(ANSWER_FD, msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
