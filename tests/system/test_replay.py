"""What the table and the restart policy say must happen is what happens to real processes: the same sequences, compared."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.supervisor.simulation import Persona
from tests.system.harness import Jar, until

LIGHT = (sys.executable, "-m", "tests.chaos.programs.light")
INTENSITY = 2
CONFIG = f"""
[jar]
name = "replay"
[model]
name = "smollm2-135m"
context = 512
[restart]
pause = "0s"
intensity = {INTENSITY}
window = "1h"
reset = "1h"
give_up = "persona"
"""
WHENS = ("always", "on_death", "never")
OPS = ("killed", "segv", "left", "stop", "restart", "pause", "resume")
SIGNALS = {"killed": signal.SIGKILL, "segv": signal.SIGSEGV, "left": signal.SIGUSR2}


def observed(jar: Jar, name: str) -> tuple[str, int, int]:
    persona = jar.persona(name)
    state = {"thinking": "ready"}.get(persona["state"], persona["state"])
    return state, persona["deaths"], persona["birth"]


def apply(jar: Jar, name: str, simulated: Persona, op: str) -> None:
    if op in SIGNALS:
        pid = jar.persona(name)["pid"]
        if pid is not None and simulated.phase.value == "ready":
            os.kill(pid, SIGNALS[op])
        simulated.die(op)
        simulated.deadline()
    else:
        jar.ask(op, name=name)
        if op in ("pause", "resume"):
            simulated.paused = op == "pause"
        else:
            getattr(simulated, op)()


def settles(jar: Jar, name: str, wanted: tuple[str, int, int], after: str) -> None:
    try:
        until(lambda: observed(jar, name) == wanted)
    except AssertionError:
        raise AssertionError(f"{name} after {after}: wanted {wanted}, is {observed(jar, name)}") from None


def test_the_same_sequences_on_real_processes(tmp_path: Path) -> None:
    """One jar for all of them: what a sequence leaves is where the next one begins, for the persona and for its simulation."""
    config = tmp_path / "matrix.toml"
    prompt = tmp_path / "quiet.md"
    prompt.write_text("QUIET")
    config.write_text(
        CONFIG + "".join(f'[[persona]]\nname = "{when}"\nrole = "isolated"\nwhen = "{when}"\nprompt = "{prompt}"\n' for when in WHENS)
    )
    jar = Jar(tmp_path, config, "--force", program=LIGHT)
    simulated = {when: Persona(intensity=INTENSITY, when=when) for when in WHENS}  # type: ignore[arg-type]
    try:
        jar.start()
        jar.until_ready()
        for one in simulated.values():
            one.start()

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(st.sampled_from(WHENS), st.lists(st.sampled_from(OPS), min_size=1, max_size=6))
        def replay(name: str, ops: list[str]) -> None:
            one = simulated[name]
            for op in ops:
                apply(jar, name, one, op)
                settles(jar, name, (one.state, one.deaths, one.births), f"{op} of {ops}")

        replay()
        assert jar.stop() == 0
    finally:
        jar.clean_up()
