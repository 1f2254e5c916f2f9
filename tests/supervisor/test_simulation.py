"""The lifecycle and the restart policy together, under any order of faults and orders (Hypothesis, stateful)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.restart import LEFT
from tests.supervisor.simulation import Persona

SETTLED = {Phase.STOPPED, Phase.READY, Phase.DEAD, Phase.BACKOFF, Phase.FAILED}


class Supervision(RuleBasedStateMachine):
    @initialize(intensity=st.integers(1, 5), when=st.sampled_from(["always", "on_death", "never"]), give_up=st.booleans())
    def begin(self, intensity: int, when: str, give_up: bool) -> None:
        self.persona = Persona(intensity=intensity, when=when, give_up=give_up)  # type: ignore[arg-type]
        self.persona.start()
        self.wanted = True
        """Nobody has stopped it, and no death was its last."""

    @rule(cause=st.sampled_from(["segv", "killed", LEFT]))
    def die(self, cause: str) -> None:
        lived, deaths, counted = self.persona.phase is Phase.READY, self.persona.deaths, self.persona.counted
        self.persona.die(cause)
        assert self.persona.deaths == deaths + lived, "a death of who lives counts, and no other"
        if not lived:
            return
        last = self.persona.when == "never" or (self.persona.when == "on_death" and cause == LEFT)
        self.wanted = self.wanted and not last
        if last:
            assert self.persona.phase is Phase.STOPPED
        elif counted + 1 > self.persona.intensity:
            assert self.persona.phase is Phase.FAILED
        else:
            assert self.persona.phase is Phase.DEAD

    @rule()
    def stop(self) -> None:
        deaths = self.persona.deaths
        self.persona.stop()
        self.wanted = False
        assert self.persona.phase is Phase.STOPPED
        assert self.persona.deaths == deaths, "a stop is no death"

    @rule(fails=st.booleans())
    def restart(self, fails: bool) -> None:
        births, deaths = self.persona.births, self.persona.deaths
        self.persona.fails_next = fails
        self.persona.restart()
        self.wanted = True
        assert self.persona.births == births + 1
        assert self.persona.deaths == deaths
        assert self.persona.phase in ((Phase.BACKOFF, Phase.FAILED) if fails else (Phase.READY,))

    @rule(fails=st.booleans())
    def wait(self, fails: bool) -> None:
        waits = self.persona.phase in (Phase.DEAD, Phase.BACKOFF) or (self.persona.phase is Phase.FAILED and not self.persona.give_up)
        self.persona.fails_next = fails and waits
        self.persona.deadline()
        if waits:
            assert self.persona.phase in ((Phase.BACKOFF, Phase.FAILED) if fails else (Phase.READY,))

    @precondition(lambda self: hasattr(self, "persona"))
    @invariant()
    def always(self) -> None:
        persona = self.persona
        assert persona.phase in SETTLED, "in a world that works nothing hangs"
        assert persona.open_births == (persona.phase is Phase.READY), "one open birth while it lives, none else"
        assert persona.births >= persona.deaths
        assert (persona.phase is Phase.STOPPED) == (not self.wanted), "stopped is who is not wanted, and nobody else"
        if persona.give_up and persona.phase is Phase.FAILED:
            before = persona.births
            persona.deadline()
            assert persona.births == before, "given up is given up until somebody wants it"


TestSupervision = Supervision.TestCase
TestSupervision.settings = settings(max_examples=200, stateful_step_count=40)
