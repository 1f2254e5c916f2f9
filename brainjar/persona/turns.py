"""The life of one worker: take over what the last life computed, then think, turn after turn, until told to stop.

One thread thinks, listens and speaks; nothing else of this process may touch the engine. A turn:

1. take in what came over the feed, commit it to the mind;
2. ask for the inference lease and wait for it; only under it is anything computed. It may be taken back at any moment, in
   the middle of a decode too: then ask again, and go on at the same token;
3. read what is new, think aloud: words go to the vitals (they survive SIGKILL) and to the voice;
4. give the lease back; commit the thought, only then say it; leave the computed context to the next life.
"""

from __future__ import annotations

import codecs
import fcntl
import math
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from brainjar import messages, readers
from brainjar.bus import WorkerEnd
from brainjar.engine.snapshot import Snapshots
from brainjar.engine.thinker import Thinker
from brainjar.engine.threads import move_to
from brainjar.engine.vocab import EngineError
from brainjar.messages import (
    Ask,
    Birth,
    Changed,
    Guard,
    Heard,
    Lease,
    Near,
    News,
    Noted,
    Ready,
    Release,
    Resume,
    Resumed,
    Revoke,
    Said,
    Stop,
    Thought,
    Vitals,
    Yield,
)
from brainjar.minds import Newer
from brainjar.persona import mood, opening, repetition, told
from brainjar.persona.context import Context
from brainjar.persona.durable import STOP_WRITE_S
from brainjar.persona.inbox import Inbox
from brainjar.persona.mind import Kind, Line, Mind
from brainjar.persona.mood import Mood
from brainjar.persona.opening import Unread
from brainjar.persona.readings import Readings
from brainjar.persona.voice import SAY_WAIT_MS, Voice, short
from brainjar.readers import Read, Value
from brainjar.vitals import Writer

BEAT_MS: Final = 1000
"""At most this between two signs of life, while it waits."""
ASK_AGAIN_S: Final = (1.0, 30.0)
"""After how long it asks again, what it asked or what was answered may be lost; each time twice as long, up to the second."""
BIRTH_PATIENCE_S: Final = 30.0
"""How long a newborn waits for a disk with room; then its start has failed, and is tried again."""
LOCK: Final = "lock"
"""Beside its mind; held by whoever lives as the persona."""
CLAIM_S: Final = 20.0
"""How long a newborn waits for it; then its start has failed, and is tried again."""
SNAPSHOT_AFTER: Final = 16
"""So many tokens read are worth a snapshot before the thought that follows: a note of a death is about 20."""
HEARD_SHARE: Final = 4
"""What is heard before one turn may fill 1/4 of the window (`opening`)."""
RECALL_LINES: Final = 400
"""Lines of a mind that are looked at when its context must be read again; the window keeps far fewer."""


T = TypeVar("T")


class Stopped(Exception):
    """The supervisor asked this life to end cleanly."""


class Life:
    def __init__(
        self,
        engine: Thinker,
        birth: Birth,
        vitals: Writer,
        snapshots: Snapshots,
        limits: tuple[int, int],
        walls: tuple[Guard, ...] = (),
        stamps: tuple[int, int] = (0, 0),
        asked: Mapping[str, Read] | None = None,
    ) -> None:
        """`stamps`: `Ready.born_ns` and `Ready.walled_ns`; `asked`: about each thought, by name."""
        self.engine = engine
        self.birth = birth
        self.vitals = vitals
        self.snapshots = snapshots
        self.limits = limits
        self.walls = walls
        self.stamps = stamps
        self.asked = asked or {}
        self.cpus = birth.cpus
        self.stopping = False
        self.request = 0
        """The newest time that it asked for the lease."""
        self.granted = 0
        """The newest request that was granted."""
        self.revoked = False
        """The lease that it has is wanted back."""
        self.held_up_ns = 0
        """Time in this thought without the lease."""
        self.turn = 0
        self.tokens = 0
        self.think_ns = 0
        self.steps = 0
        self.inbox = Inbox(birth.texts)
        self.thoughts = repetition.Thoughts()
        self.mood = Mood()
        self.unread: list[Unread] = []
        """Committed, and not in the conversation yet: what the next turn begins with."""
        self.used: int | None = None
        """Bytes that it owns privately, as it was last told."""
        self.born_at = time.monotonic()
        """When it was READY."""
        self.born = False
        """It has been READY: what it leaves is worth keeping."""
        self.write_until = math.inf
        """Monotonic: when writing to disk must be done, once it is to stop."""
        self.changed: Changed | None = None
        """What it is to be from its next turn on."""

    # ── birth ──

    def equip(self) -> None:
        """All that can be done before it is known which life this is."""
        self.bus = WorkerEnd(self.birth.voice, self.birth.feed)
        self.voice = Voice(self.bus, self.vitals)
        self.engine.set_threads(self.birth.threads)
        self.readings = Readings(self.asked, self.voice.trouble)
        self.context = Context(self.engine, self.birth, self.snapshots, self.voice)
        self.engine.set_interrupt(self._interrupted)
        self.engine.on_decode = self._decoding
        self.engine.between = lambda: self.revoked

    def released(self, release: Release) -> None:
        """It has waited, and is to live."""
        fields = {name: getattr(release, name) for name in Release.__struct_fields__}
        self.birth = msgspec.structs.replace(self.birth, waits=False, **fields)
        self.stamps = (time.monotonic_ns(),) * 2

    def claim(self) -> None:
        """Be the only one that lives as this persona: a lock that the kernel releases with this process, however that ends.

        The supervisor never has two; but one that was killed may have left a process that hangs in the kernel, and its next start
        must not think beside that. Raise EngineError where it is still held after a while.
        """
        path = Path(self.birth.mind).with_name(LOCK)
        until = time.monotonic() + CLAIM_S
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            while True:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise EngineError(f"{path}: another process still lives as {self.birth.name}") from None
                    self.vitals.set(beat_ns=time.monotonic_ns())
                    time.sleep(0.01)
        except OSError as error:
            raise EngineError(f"{path}: cannot be locked: {error.strerror}") from None

    def prepare(self) -> None:
        """All before READY. Raise what makes this start a failed one."""
        try:
            self.mind = self._patiently(lambda: Mind(Path(self.birth.mind)), BIRTH_PATIENCE_S)
        except Newer as error:
            raise EngineError(str(error)) from None
        self.inbox.begin(self._patiently(self.mind.noted, BIRTH_PATIENCE_S))
        self.mood = self._patiently(self.mind.mood, BIRTH_PATIENCE_S)
        try:
            restored = self._patiently(self._remember, BIRTH_PATIENCE_S)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise EngineError(f"{self.birth.mind}: {error}") from None
            self.mind.begin_anew()
            self.context.forget()
            self.unread = []
            restored = self._remember()
        if self.mind.set_aside:
            self._say_set_aside()
        self._check_prompt()
        limit, baseline = self.limits
        self.voice.say(
            Ready(
                threads=self.birth.threads,
                restored_tokens=restored,
                restored_from=self.context.restored_from,
                remembered=self.mind.count(),
                noted=self.inbox.newest,
                rlimit_bytes=limit,
                baseline_bytes=baseline,
                n_ctx=self.engine.n_ctx,
                sandbox=self.walls,
                born_ns=self.stamps[0],
                walled_ns=self.stamps[1],
            ),
            wait_ms=SAY_WAIT_MS,
        )
        self.context.tell()
        self.born, self.born_at = True, time.monotonic()

    def _remember(self) -> int:
        """Take over what there is of its past; return the tokens that need not be read again."""
        restored = self.context.begin(self.birth, self.mind)
        if self.birth.deaths > self.mind.told_deaths():
            text = told.of_own_death(self.birth.texts, self.birth.deaths, self.birth.last_cause, self.birth.last_said)
            self.mind.add(self.birth.life, [("told", messages.JAR, text)], told_deaths=self.birth.deaths)
        self._recall(self.mind.after(self.context.line, RECALL_LINES))
        if not restored:
            self.context.conversation.slide(self.context.reserve, self.context.first)  # a past that is read again is no reason to grow
        return restored

    def _say_set_aside(self) -> None:
        assert self.mind.set_aside is not None
        what = f"mind.db was damaged; it is set aside as {self.mind.set_aside.name} and a new one begun"
        self.voice.trouble(what)

    def _recall(self, lines: list[Line]) -> None:
        """Put what the mind holds beyond the snapshot into the conversation; what has no answer yet waits for the next turn."""
        for line in lines:
            if line.kind != "thought":
                self.unread.append(self._quote(line.kind, line.source, line.content))
            else:
                self.context.conversation.hear(self._opening())
                self.context.conversation.recall(self.engine.defang(line.content))
            self.context.line = line.id

    def _check_prompt(self) -> None:
        if why := self._why_too_long(self.birth):
            raise EngineError(why)

    def _why_too_long(self, birth: Birth) -> str:
        need = len(self.engine.tokenize(birth.prompt)) + birth.sampling.max_tokens + 64
        if need <= self.engine.n_ctx // 2:
            return ""
        return (
            f"persona.{birth.name}: its prompt and one thought need {need} tokens, more than half of its context of"
            f" {self.engine.n_ctx}: shorten the prompt, lower sampling.max_tokens or raise model.context to {2 * need}"
        )

    def _change(self, changed: Changed) -> None:
        """Think under another config from here on. With another prompt its past is read again behind that: the start of a context
        is what all of it was computed behind."""
        birth = msgspec.structs.replace(
            self.birth,
            prompt=changed.prompt,
            first=changed.first,
            texts=changed.texts,
            sampling=changed.sampling,
            snapshot_share=changed.snapshot_share,
            retention=changed.retention,
        )
        if why := self._why_too_long(birth):
            self.voice.trouble(f"{why}; it goes on as it was")
            return
        self.birth = birth
        self.inbox.texts = birth.texts
        if self.context.become(birth):
            self.unread = []
            self._recall(self.mind.after(0, RECALL_LINES))
            self.context.conversation.slide(self.context.reserve, self.context.first)

    # ── the loop ──

    def live(self) -> None:
        """Think until told to stop. Raise `Stopped` then; anything else that is raised is a death."""
        while True:
            self._listen(0)
            if self.changed is not None:
                changed, self.changed = self.changed, None
                self._change(changed)
            self._commit_inbox()
            self._wait_for_lease()
            self._think()

    def _wait_for_lease(self) -> None:
        self.turn += 1
        self.vitals.set(turn=self.turn)
        while True:
            self._ask_lease()
            self._commit_inbox()
            if self.granted == self.request:
                return  # or a disk was full, and the lease given back meanwhile

    def _ask_lease(self) -> None:
        self.request += 1
        self.revoked = False
        patience_s, longest_s = ASK_AGAIN_S
        while self.granted != self.request:
            self.voice.say(Ask(request=self.request))
            until = time.monotonic() + patience_s
            while self.granted != self.request and (left := until - time.monotonic()) > 0:
                self._listen(max(1, min(BEAT_MS, int(left * 1000))))
            patience_s = min(2 * patience_s, longest_s)

    def _keep_pace(self) -> None:
        """Give the lease back where it is wanted, and wait until it is given again. Raise `Stopped` when told to."""
        self._must_stop()
        if self.revoked:
            began = time.monotonic_ns()
            self._speak("", last=True)
            self.voice.say(Yield(request=self.request), wait_ms=SAY_WAIT_MS)
            self._ask_lease()
            self.held_up_ns += time.monotonic_ns() - began

    def _think(self) -> None:
        self.context.conversation.hear(self._opening())
        while not self.context.conversation.settle(self.context.reserve):
            self._keep_pace()
        text, tokens, began, circles = self._generate()
        seconds = (time.monotonic_ns() - began - self.held_up_ns) / 1e9
        self.context.conversation.think(text, tokens)
        self.context.foretell()
        self.granted, self.revoked = 0, False
        self.voice.say(Yield(request=self.request), wait_ms=SAY_WAIT_MS)  # all that is left needs no core: nobody waits for this one's disk
        if text.strip():
            self.mood = self._fares(text)
            lines: list[tuple[Kind, str, str]] = [("thought", self.birth.name, text.strip())]
            self.context.line = self._commit(lines, mood=self.mood, trace=self.context.trace())
            self.context.committed()
            readings = self._read(text.strip())
            facts: dict[str, Any] = {"mood": self.mood.word, "loop": self._loop(text, circles=circles), "readings": readings}
            thought = Thought(line=self.context.line, turn=self.turn, tokens=len(tokens), seconds=seconds, text=short(text), **facts)
            self.voice.say(thought, wait_ms=SAY_WAIT_MS)
        self.vitals.clear_words()
        self.context.leave()
        self.context.conversation.come_back()
        self.context.keep(self.mind, self._may_write_on)
        self._patiently(lambda: self.mind.prune(self.birth.retention, least=RECALL_LINES))
        if not text.strip():
            self._listen(BEAT_MS)  # a model that has nothing to say is not asked again at once

    def _fares(self, text: str) -> Mood:
        since = time.monotonic() - self.born_at if self.birth.deaths else None
        fullness = None if self.used is None else self.used / self.birth.memory_cap
        return mood.after(self.mood, text, since_death_s=since, fullness=fullness)

    def _read(self, text: str) -> dict[str, dict[str, Value]]:
        """What others read out of the thought that was just committed; kept beside it."""
        birth = self.birth
        facts: dict[str, Any] = {"persona": birth.name, "role": birth.role, "life": birth.life, "deaths": birth.deaths}
        found = self.readings.of(readers.Thought(text=text, mood=self.mood.word, **facts))
        if found:
            try:
                self.mind.read(self.context.line, found)
            except sqlite3.Error as error:  # worth neither waiting for a disk nor a life
                self.voice.trouble(f"what was read out of a thought cannot be kept: {error}")
        return found

    def _loop(self, text: str, *, circles: bool) -> Literal["", "within", "again"]:
        """Whether it goes round in circles; then its next turn begins with being told so."""
        again = self.thoughts.again(text)
        if not self.birth.sampling.loop_guard or not (again or circles):
            return ""
        self.inbox.tell(told.AGAIN)
        return "within" if circles else "again"

    def _generate(self) -> tuple[str, list[int], int, bool]:
        """Think one thought. Return its text, its tokens, when it began, and whether it was ended for going round in circles."""
        self.vitals.clear_words()
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        words: list[str] = []
        self.held_up_ns = 0
        began = time.monotonic_ns()
        last = began
        thought: list[int] = []
        circles = False
        while len(thought) < self.birth.sampling.max_tokens:
            token = self.engine.sample()
            if self.engine.ends(token):
                break
            text = decoder.decode(self.engine.piece(token))
            thought.append(token)
            circles = self.birth.sampling.loop_guard and repetition.period(thought) > 0
            self.tokens += 1
            if text:
                words.append(text)
                self.vitals.word(text)
                self._speak(text)
            if len(thought) == 1 and self.context.unsaved >= SNAPSHOT_AFTER:
                self.context.foretell()
                self.context.leave()  # or a death in this thought would have it all read again
                self.context.conversation.come_back()
                while self.context.conversation.unread and not self.context.conversation.settle(0):
                    self._keep_pace()
            self._listen(0)
            held_up_ns = self.held_up_ns
            self._keep_pace()
            while not self.engine.feed([token]):
                self._keep_pace()
            now = time.monotonic_ns()
            self.think_ns += now - last - (self.held_up_ns - held_up_ns)
            last = now
            self.vitals.set(beat_ns=now, tokens=self.tokens, think_ns=self.think_ns)
            if circles:
                break
        words.append(decoder.decode(b"", final=True))
        self._speak(words[-1], last=True)
        return "".join(words), thought, began, circles

    def _may_write_on(self) -> bool:
        """Asked between two pieces of a write: beat; who is to stop has a bounded time for it."""
        try:
            self._listen(0)
        except Stopped:
            self.write_until = min(self.write_until, time.monotonic() + STOP_WRITE_S)
        return time.monotonic() < self.write_until

    # ── hearing ──

    def _listen(self, wait_ms: int) -> None:
        """Take what is on the feed; beat. Raise `Stopped` when told to."""
        for body in self.bus.listen(wait_ms):
            match messages.decode_feed(body):
                case Stop():
                    self.stopping = True
                case Lease(request=request, cpus=cpus, acked=acked, used=used):
                    self.granted, self.used = request, used
                    self.voice.heard(acked)
                    if cpus and cpus != self.cpus:
                        move_to(cpus)
                        self.cpus = cpus
                case Resume(acked=acked):
                    self.voice.heard(acked)
                    self._say_again()
                case Revoke(request=request):
                    self.revoked = self.revoked or request == self.granted == self.request
                case Changed() as changed:
                    self.changed = changed
                case Near() as near:
                    self.inbox.tell(told.of_its_cap(near))
                case Vitals() as vitals:
                    self.inbox.see(vitals)
                case Heard() | News() | Said() as letter:
                    self.inbox.take(letter)
        self.vitals.set(beat_ns=time.monotonic_ns())
        self._must_stop()

    def _say_again(self) -> None:
        """Whoever listened is gone, and with it what it had not heard yet."""
        self.voice.say_again()
        self.voice.say(Resumed(sent=self.voice.sent + 1))
        if self.request and self.granted != self.request:
            self.voice.say(Ask(request=self.request))

    def _must_stop(self) -> None:
        if self.stopping:
            raise Stopped

    def _interrupted(self) -> bool:
        """Asked by llama.cpp in the middle of a decode, where nothing may be raised: a sign that it gets on, however long one takes."""
        self.steps += 1
        self.vitals.set(steps=self.steps)
        try:
            self._listen(0)
        except Stopped:
            pass
        # a model whose state cannot be cut would lose all of it: it gives the lease back between two decodes
        return self.stopping or (self.revoked and self.engine.can_cut())

    def _decoding(self, begins: bool) -> None:
        self.vitals.set(decode_ns=time.monotonic_ns() if begins else 0, decoded=self.engine.computed, held=self.engine.n_past)

    def _opening(self) -> str:
        """What this turn begins with: what is unread, and how much of it was left out; else what sets a mind going."""
        room = self.engine.n_ctx // HEARD_SHARE
        kept, left_out = opening.choose(self.unread, room, lambda text: len(self.engine.tokenize(text)))
        self.unread = []
        if kept:
            return "\n".join([told.of_missed(left_out)] * bool(left_out) + kept)
        if not self.context.conversation.messages:
            return self.birth.first
        return told.to_go_on(
            self.birth.texts,
            life=self.birth.life,
            deaths=self.birth.deaths,
            cause=self.birth.last_cause,
            used=self.used,
            age_s=time.monotonic() - self.born_at,
            mood=self.mood.word,
        )

    def _quote(self, kind: Kind, source: str, content: str) -> Unread:
        text = self.engine.defang(content)
        by = source if kind == "heard" else told.VOICE if kind == "said" else ""
        return Unread(kind, f"{by}: {text}" if by else text)

    # ── remembering ──

    def _commit_inbox(self) -> None:
        if self.inbox:
            lines, noted = self.inbox.empty(), self.inbox.newest
            self.context.line = self._commit(lines, noted=noted)
            self.voice.say(Noted(no=noted))
            self.unread += [self._quote(*line) for line in lines]

    def _commit(self, lines: list[tuple[Kind, str, str]], **more: Any) -> int:
        """`more`: of `Mind.add`."""

        def add() -> int:
            return self.mind.add(self.birth.life, lines, **more)

        try:
            return self._patiently(add)
        except sqlite3.DatabaseError:
            self.mind.begin_anew()  # what it knew is still in its context, and this line is not lost
            self._say_set_aside()
            return self._patiently(add)

    def _patiently(self, what: Callable[[], T], patience_s: float = math.inf) -> T:
        """Do `what` with the mind; wait while the disk is full rather than think what cannot be remembered."""
        until = time.monotonic() + patience_s
        said = False
        while True:
            try:
                return what()
            except sqlite3.OperationalError as error:
                if time.monotonic() > until:
                    raise
                if self.granted == self.request != 0:  # others need no disk to think
                    self.granted, self.revoked = 0, False
                    self.voice.say(Yield(request=self.request), wait_ms=SAY_WAIT_MS)
                if not said:
                    self.voice.trouble(f"cannot write {self.birth.mind}: {error}; thinking waits until it can")
                    said = True
                self._listen(BEAT_MS)

    def _speak(self, text: str, *, last: bool = False) -> None:
        self.voice.speak(text, turn=self.turn, tokens=self.tokens, last=last)

    def close(self) -> None:
        self._speak("", last=True)
        if self.born:
            self.context.keep(self.mind, self._may_write_on, stopping=True)
        self.mind.close()
        self.bus.close()
