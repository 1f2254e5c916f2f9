"""What an upgrade executes: the new version takes over, or before its first lap is done the old one does again.

    python stub.py supervise HANDOVER ASIDE

The first word is for who looks at `ps`. `HANDOVER`: a descriptor (`handover`); `ASIDE`: the directory where the old version is kept
(`aside`), this file with it, and that has to run whatever the new one is: it imports nothing of brainjar, but the one line that is
meant to fail.
"""

import os
import signal
import sys

PATIENCE_S = 30
"""For the new version, from its import to the end of its first lap."""


def main() -> None:
    handover, aside, why = int(sys.argv[2]), sys.argv[3], "".join(sys.argv[4:])
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    if why:  # the new version could not
        sys.path.insert(0, aside)
    lapped = False

    def done() -> None:
        nonlocal lapped
        lapped = True
        signal.alarm(0)

    def late(*_: object) -> None:
        raise TimeoutError(f"its first lap was not done after {PATIENCE_S} s")

    try:
        signal.signal(signal.SIGALRM, late)
        signal.alarm(PATIENCE_S)
        from brainjar.supervisor import takeover

        status = takeover.run(handover, done, why)
    except BaseException as error:
        signal.alarm(0)
        if lapped or why:
            raise
        why = f"{type(error).__name__}: {error}".replace("\0", "").splitlines()[0][:500]
        again = [sys.executable, os.path.abspath(__file__), "supervise", str(handover), aside, why]
        os.execv(sys.executable, again)
    sys.exit(status)


if __name__ == "__main__":
    main()
