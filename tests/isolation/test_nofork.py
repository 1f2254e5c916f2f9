"""A process that may make no processes can still think with all its threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from brainjar.isolation.nofork import _MACHINES

CODE = """
import os, subprocess, sys, threading
from brainjar.isolation import bonds, nofork
bonds.drop_capabilities()
assert nofork.forbid()
said = []
threads = [threading.Thread(target=lambda: said.append(1)) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(said) == 4
for make in (os.fork, lambda: subprocess.run(["true"]), lambda: os.posix_spawn("/bin/true", ["true"], {})):
    try:
        make()
    except PermissionError:
        continue
    os._exit(9)
print("threads, no processes")
"""


@pytest.mark.system
@pytest.mark.skipif(os.uname().machine not in _MACHINES, reason=f"no filter is written for {os.uname().machine}")
def test_threads_are_allowed_and_processes_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "threads, no processes\n"), done.stderr
