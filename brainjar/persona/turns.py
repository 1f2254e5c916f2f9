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
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from brainjar import messages
from brainjar.bus import WorkerEnd
from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.engine.thinker import Thinker
from brainjar.engine.threads import move_to
from brainjar.engine.vocab import EngineError, OutOfMemory
from brainjar.messages import (
    Ask,
    Birth,
    Changed,
    Guard,
    Heard,
    Kept,
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
    Sampling,
    Stop,
    Thought,
    Token,
    Trouble,
    Vitals,
    Yield,
)
from brainjar.minds import Newer
from brainjar.persona import mood, opening, repetition, told
from brainjar.persona.conversation import Conversation
from brainjar.persona.durable import STOP_WRITE_S, Durable, fingerprint
from brainjar.persona.inbox import Inbox
from brainjar.persona.mind import Kind, Line, Mind
from brainjar.persona.mood import Mood
from brainjar.persona.opening import Unread
from brainjar.vitals import Writer

BEAT_MS: Final = 1000
"""At most this between two signs of life, while it waits."""
ASK_AGAIN_S: Final = (1.0, 30.0)
"""After how long it asks again, what it asked or what was answered may be lost; each time twice as long, up to the second."""
WORDS_S: Final = 0.1
"""Words that come faster are said together: what people read is the same, at a fraction of the cost."""
BIRTH_PATIENCE_S: Final = 30.0
"""How long a newborn waits for a disk with room; then its start has failed, and is tried again."""
SAY_WAIT_MS: Final = 2000
LOCK: Final = "lock"
"""Beside its mind; held by whoever lives as the persona."""
CLAIM_S: Final = 20.0
"""How long a newborn waits for it; then its start has failed, and is tried again."""
SNAPSHOT_AFTER: Final = 16
"""So many tokens read are worth a snapshot before the thought that follows: a note of a death is about 20."""
LIKELY: Final = "killed-by-operator"
"""What somebody will die of who has not died yet."""
THOUGHT_BYTES: Final = 32 * 1024
"""Of a thought on the bus, half of what a voice may carry (`bus.VOICE_BYTES`); the mind keeps it whole."""
UNHEARD: Final = 64
"""Messages kept until they are acknowledged, which each lease does; more than one turn has."""
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
    ) -> None:
        """`stamps`: `Ready.born_ns` and `Ready.walled_ns`."""
        self.engine = engine
        self.birth = birth
        self.vitals = vitals
        self.snapshots = snapshots
        self.limits = limits
        self.walls = walls
        self.stamps = stamps
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
        self.sent = 0
        self.numbered = 0
        """The newest number given to what must not be lost."""
        self.unheard: deque[tuple[int, bytes]] = deque(maxlen=UNHEARD)
        """What has such a number and was not acknowledged."""
        self.line = 0
        self.unsaid = ""
        """Words that wait for those that follow."""
        self.spoken = 0
        """Tokens that were said."""
        self.speak_at = 0.0
        """Monotonic: from when on words are said again."""
        self.inbox = Inbox(birth.texts)
        self.thoughts = repetition.Thoughts()
        self.mood = Mood()
        self.unread: list[Unread] = []
        """Committed, and not in the conversation yet: what the next turn begins with."""
        self.fingerprint = fingerprint(engine.identity, birth.prompt)
        self.durable = Durable(
            Path(birth.mind).parent, birth.snapshot_share, lambda what: self.say(Trouble(what=what), wait_ms=SAY_WAIT_MS)
        )
        self.memory_at: float | None = None
        """When it left the newest snapshot in memory; Unix seconds. None: an earlier life did."""
        self.restored_from: Literal["memory", "disk", "none"] = "none"
        self.used: int | None = None
        """Bytes that it owns privately, as it was last told."""
        self.born_at = time.monotonic()
        """When it was READY."""
        self.born = False
        """It has been READY: what it leaves is worth keeping."""
        self.write_until = math.inf
        """Monotonic: when writing to disk must be done, once it is to stop."""
        self.first = engine.n_ctx
        """The window that each life is born with; growth makes it larger."""
        self.changed: Changed | None = None
        """What it is to be from its next turn on."""
        self.slides = False
        """It was said that its window grows no more."""
        self.saved: tuple[int, int] | None = None
        """What the newest snapshot is of (`_held`); None: of nothing that is in the engine."""
        self.saved_at = engine.computed
        self.taken_over = 0
        """The generation of the snapshot that the engine holds; 0: of none."""

    @property
    def reserve(self) -> int:
        """What a turn must find room for behind all that it has read."""
        return self.birth.sampling.max_tokens + 16

    # ── birth ──

    def equip(self) -> None:
        """All that can be done before it is known which life this is."""
        self.bus = WorkerEnd(self.birth.voice, self.birth.feed)
        self.conversation = Conversation(self.engine, self.birth.prompt, self._grow)
        self.engine.set_threads(self.birth.threads)
        self._sample_by(self.birth.sampling)
        self.engine.set_interrupt(self._interrupted)
        self.engine.on_decode = self._decoding
        self.engine.between = lambda: self.revoked

    def _sample_by(self, sampling: Sampling) -> None:
        self.engine.set_sampling(sampling, secrets.randbits(31) if sampling.seed is None else sampling.seed)

    def take_over(self) -> None:
        """While the life before still lives: have the engine hold its newest snapshot. Nothing else of the mind is touched."""
        generation = self.snapshots.refresh()
        if generation == self.taken_over:
            return
        self.taken_over = 0
        left = self.snapshots.peek()
        if left is None or left.fingerprint != self.fingerprint or not 0 < left.n_past <= self.engine.n_ctx:
            return
        meta = self.snapshots.read(self.fingerprint, lambda meta, state: self.engine.load_state(state, meta.n_past))
        # what is read is given back as soon as the next one is whole: only if it is the newest still, all of it was there
        if meta == left and self.snapshots.refresh() == generation:
            self.taken_over = generation
        else:
            self.engine.truncate(0)

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
            self._forget()
            restored = self._remember()
        if self.mind.set_aside:
            self._say_set_aside()
        self._check_prompt()
        limit, baseline = self.limits
        self.say(
            Ready(
                threads=self.birth.threads,
                restored_tokens=restored,
                restored_from=self.restored_from,
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
        self.say(Kept(snapshot=self.durable.status(self.snapshots, None)))
        self.born, self.born_at = True, time.monotonic()

    def _forget(self) -> None:
        """Begin with nothing but its prompt; the mind is as it is."""
        self.conversation, self.line, self.unread = Conversation(self.engine, self.birth.prompt, self._grow), 0, []
        self.engine.truncate(0)
        self.snapshots.discard()
        self.saved = None

    def _remember(self) -> int:
        """Take over what there is of its past; return the tokens that need not be read again."""
        restored = self._take_snapshot()
        from_disk = self.durable.taken(bool(restored))
        self.restored_from = "disk" if from_disk else "memory" if restored else "none"
        if self.birth.deaths > self.mind.told_deaths():
            text = told.of_own_death(self.birth.texts, self.birth.deaths, self.birth.last_cause, self.birth.last_said)
            self.mind.add(self.birth.life, [("told", messages.JAR, text)], told_deaths=self.birth.deaths)
        self._recall(self.mind.after(self.line, RECALL_LINES))
        if not restored:
            self.conversation.slide(self.reserve, self.first)  # a past that is read again is no reason to grow
        return restored

    def _say_set_aside(self) -> None:
        assert self.mind.set_aside is not None
        what = f"mind.db was damaged; it is set aside as {self.mind.set_aside.name} and a new one begun"
        self.say(Trouble(what=what), wait_ms=SAY_WAIT_MS)

    def _take_snapshot(self) -> int:
        if self.birth.afresh:
            self.snapshots.discard()  # or what ended the last start would end this one
            self.durable.put_aside("the last start with it failed")
        self.durable.bring(self.snapshots, self.fingerprint, self.mind.mark, self._could_have_window)
        generation = self.snapshots.refresh()
        left = self.snapshots.peek()
        if left is None or left.fingerprint != self.fingerprint or left.line > self.mind.newest() or not self._have_window(left):
            self.engine.truncate(0)
            return 0
        if generation == self.taken_over:
            meta: Meta | None = left
        else:
            meta = self.snapshots.read(self.fingerprint, lambda meta, state: self.engine.load_state(state, meta.n_past))
        if meta is None:
            return 0
        self.conversation.take(meta)
        self.line = meta.line
        self.saved = self._held()
        starved = self.birth.last_cause in told.OF_MEMORY and self.birth.deaths > self.mind.told_deaths()
        if self.birth.growth == "context" and starved:  # with a full window it would ask for the same memory again, and die at once
            most = self.first - self.reserve
            self.conversation.forget(min(self.first // 2, most), most)
            if self._held() != self.saved:
                self._leave_snapshot()  # whatever ends this life early, the next one has less to take over
        return self.engine.n_past

    def _could_have_window(self, meta: Meta) -> bool:
        """Whether there may be a window for what `meta` describes."""
        if not 0 < meta.n_past <= meta.n_ctx:
            return False
        return meta.n_past <= self.engine.n_ctx or (self.birth.growth == "context" and meta.n_ctx <= self.engine.n_ctx_train)

    def _have_window(self, meta: Meta) -> bool:
        """Whether the engine has, or now gets, a window for what `meta` describes. It fitted before; it may not fit any more."""
        if not self._could_have_window(meta) or meta.n_past <= self.engine.n_ctx:
            return self._could_have_window(meta)
        try:
            self.engine.reopen_context(meta.n_ctx)
        except OutOfMemory:
            self.engine.reopen_context(self.first)
            self.say(Trouble(what=f"its window of {meta.n_ctx} tokens cannot be had any more: it reads its newest past again"))
            return False
        return True

    def _recall(self, lines: list[Line]) -> None:
        """Put what the mind holds beyond the snapshot into the conversation; what has no answer yet waits for the next turn."""
        for line in lines:
            if line.kind != "thought":
                self.unread.append(self._quote(line.kind, line.source, line.content))
            else:
                self.conversation.hear(self._opening())
                self.conversation.recall(self.engine.defang(line.content))
            self.line = line.id

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
            self.say(Trouble(what=f"{why}; it goes on as it was"), wait_ms=SAY_WAIT_MS)
            return
        before, self.birth = self.birth, birth
        self._sample_by(birth.sampling)
        self.inbox.texts = birth.texts
        self.durable.share(birth.snapshot_share)
        if birth.prompt != before.prompt:
            self.fingerprint = fingerprint(self.engine.identity, birth.prompt)
            self._forget()
            self._recall(self.mind.after(0, RECALL_LINES))
            self.conversation.slide(self.reserve, self.first)

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
            self.say(Ask(request=self.request))
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
            self.say(Yield(request=self.request), wait_ms=SAY_WAIT_MS)
            self._ask_lease()
            self.held_up_ns += time.monotonic_ns() - began

    def _think(self) -> None:
        self.conversation.hear(self._opening())
        while not self.conversation.settle(self.reserve):
            self._keep_pace()
        text, tokens, began, circles = self._generate()
        seconds = (time.monotonic_ns() - began - self.held_up_ns) / 1e9
        self.conversation.think(text, tokens)
        self._foretell()
        self.granted, self.revoked = 0, False
        self.say(Yield(request=self.request), wait_ms=SAY_WAIT_MS)  # all that is left needs no core: nobody waits for this one's disk
        if text.strip():
            self.mood = self._fares(text)
            self.line = self._commit([("thought", self.birth.name, text.strip())], mood=self.mood)
            facts: dict[str, Any] = {"mood": self.mood.word, "loop": self._loop(text, circles=circles)}
            thought = Thought(line=self.line, turn=self.turn, tokens=len(tokens), seconds=seconds, text=_short(text), **facts)
            self.say(thought, wait_ms=SAY_WAIT_MS)
        self.vitals.clear_words()
        self._leave_snapshot()
        self.conversation.come_back()
        self._keep()
        self._patiently(lambda: self.mind.prune(self.birth.retention, least=RECALL_LINES))
        if not text.strip():
            self._listen(BEAT_MS)  # a model that has nothing to say is not asked again at once

    def _fares(self, text: str) -> Mood:
        since = time.monotonic() - self.born_at if self.birth.deaths else None
        fullness = None if self.used is None else self.used / self.birth.memory_cap
        return mood.after(self.mood, text, since_death_s=since, fullness=fullness)

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
            if len(thought) == 1 and self.engine.computed - self.saved_at >= SNAPSHOT_AFTER:
                self._foretell()
                self._leave_snapshot()  # or a death in this thought would have it all read again
                self.conversation.come_back()
                while self.conversation.unread and not self.conversation.settle(0):
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

    def _foretell(self) -> None:
        """Under the lease: read what the next life will be told first, if it dies as the last one did. Some 20 tokens for each turn."""
        if self.birth.standby:
            text = told.of_own_death(self.birth.texts, self.birth.deaths + 1, self.birth.last_cause or LIKELY)
            self.conversation.foretell(text, self.reserve)

    def _held(self) -> tuple[int, int]:
        """Changes with whatever changes in the engine's sequence."""
        return self.engine.computed, self.engine.n_past

    def _leave_snapshot(self) -> None:
        size = self.engine.state_size()
        self.saved_at, self.saved = self.engine.computed, None
        meta = self.conversation.meta(self.fingerprint, self.line)
        try:
            if size and self.snapshots.write(meta, size, self.engine.save_state):
                self.saved, self.memory_at = self._held(), time.time()
        except OSError as error:
            self.snapshots.discard()
            self.say(Trouble(what=f"no room to leave the context to the next life ({error.strerror}): it will read its past again"))

    def _keep(self, *, stopping: bool = False) -> None:
        """Copy what was left in memory to disk when that is due, and tell where it stands."""
        try:
            self.durable.keep(self.snapshots, self.mind.mark, self._may_write_on, stopping=stopping)
        except sqlite3.Error:
            pass  # the mind cannot be read just now: the next commit finds out what that means
        self.say(Kept(snapshot=self.durable.status(self.snapshots, self.memory_at)))
        if trouble := self.mind.journal.trouble():
            self.say(Trouble(what=trouble), wait_ms=SAY_WAIT_MS)

    def _may_write_on(self) -> bool:
        """Asked between two pieces of a write: beat; who is to stop has a bounded time for it."""
        try:
            self._listen(0)
        except Stopped:
            self.write_until = min(self.write_until, time.monotonic() + STOP_WRITE_S)
        return time.monotonic() < self.write_until

    def _grow(self) -> bool:
        """Asked when the window is full: open one twice as large, with all that is computed. False: it is to slide.

        Raise `OutOfMemory` where the cap has no room for it: the death that this experiment is about. What is computed is
        left to the next life before.
        """
        if self.birth.growth != "context":
            return False
        old, largest = self.engine.n_ctx, self.engine.n_ctx_train
        if old >= largest:
            if not self.slides:
                self.slides = True
                what = f"its window has reached the {largest} tokens that its model was trained for; it slides from here"
                self.say(Trouble(what=what), wait_ms=SAY_WAIT_MS)
            return False
        if self.saved != self._held():
            self._leave_snapshot()
        kept = self.saved is not None
        if self.engine.reopen_context(min(2 * old, largest)):
            pass  # an engine's cells are there already: nothing of the sequence is lost
        elif kept and self.snapshots.read(self.fingerprint, lambda meta, state: self.engine.load_state(state, meta.n_past)):
            self.saved = self._held()
        else:
            self.saved = None  # what the conversation holds is read again
        self.say(Trouble(what=f"window grown to {self.engine.n_ctx} tokens"), wait_ms=SAY_WAIT_MS)
        return self.engine.n_ctx > old

    # ── hearing ──

    def _listen(self, wait_ms: int) -> None:
        """Take what is on the feed; beat. Raise `Stopped` when told to."""
        for body in self.bus.listen(wait_ms):
            match messages.decode_feed(body):
                case Stop():
                    self.stopping = True
                case Lease(request=request, cpus=cpus, acked=acked, used=used):
                    self.granted, self.used = request, used
                    self._heard(acked)
                    if cpus and cpus != self.cpus:
                        move_to(cpus)
                        self.cpus = cpus
                case Resume(acked=acked):
                    self._heard(acked)
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

    def _heard(self, upto: int) -> None:
        """What was numbered up to `upto` needs to be said no more."""
        while self.unheard and self.unheard[0][0] <= upto:
            self.unheard.popleft()

    def _say_again(self) -> None:
        """Whoever listened is gone, and with it what it had not heard yet."""
        for _, body in self.unheard:
            self._send(body)
        self.say(Resumed(sent=self.sent + 1))
        if self.request and self.granted != self.request:
            self.say(Ask(request=self.request))

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
        if not self.conversation.messages:
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
            self.line = self._commit(lines, noted)
            self.say(Noted(no=noted))
            self.unread += [self._quote(*line) for line in lines]

    def _commit(self, lines: list[tuple[Kind, str, str]], noted: int | None = None, mood: Mood | None = None) -> int:
        try:
            return self._patiently(lambda: self.mind.add(self.birth.life, lines, noted=noted, mood=mood))
        except sqlite3.DatabaseError:
            self.mind.begin_anew()  # what it knew is still in its context, and this line is not lost
            self._say_set_aside()
            return self._patiently(lambda: self.mind.add(self.birth.life, lines, noted=noted, mood=mood))

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
                    self.say(Yield(request=self.request), wait_ms=SAY_WAIT_MS)
                if not said:
                    self.say(Trouble(what=f"cannot write {self.birth.mind}: {error}; thinking waits until it can"), wait_ms=SAY_WAIT_MS)
                    said = True
                self._listen(BEAT_MS)

    # ── speaking ──

    def _speak(self, text: str, *, last: bool = False) -> None:
        """Say `text` at once, or with what follows where words come fast; with the `last` for now, all that is left."""
        self.unsaid += text
        now = time.monotonic()
        if self.unsaid and (last or now >= self.speak_at):
            self.say(Token(n=self.tokens, tokens=self.tokens - self.spoken, turn=self.turn, text=self.unsaid))
            self.unsaid, self.spoken, self.speak_at = "", self.tokens, now + WORDS_S

    def say(self, message: messages.Voice, *, wait_ms: int = 0) -> None:
        """Send to the supervisor. Without `wait_ms` it may be lost when the queue is full: only words and repeated asking go so."""
        if isinstance(message, Ready | Thought | Trouble):
            self.numbered += 1
            message = msgspec.structs.replace(message, no=self.numbered)
            self.unheard.append((self.numbered, messages.encode(message)))
        self._send(messages.encode(message), wait_ms)

    def _send(self, body: bytes, wait_ms: int = 0) -> None:
        if self.bus.say(body, wait_ms=wait_ms):
            self.sent += 1
            self.vitals.set(sent=self.sent)

    def close(self) -> None:
        self._speak("", last=True)
        if self.born:
            self._keep(stopping=True)
        self.mind.close()
        self.bus.close()


def _short(text: str) -> str:
    raw = text.strip().encode()
    return raw.decode() if len(raw) <= THOUGHT_BYTES else raw[:THOUGHT_BYTES].decode(errors="ignore") + " […]"
