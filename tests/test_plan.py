"""What `plan.plan` promises: it adds up, what it calls the least works and less does not, and what it says to change makes it fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar import plan as plans
from brainjar.config import (
    Config,
    Engine,
    Inference,
    Jar,
    Model,
    Persona,
    Placement,
    Restart,
    Sampling,
    Snapshots,
    Watchdog,
    Web,
    parse_size,
)
from brainjar.gguf import Gguf
from brainjar.plan import MIB, Buffer, Device, Figures, HostMemory, Place, Plan, Window
from brainjar.quota import LEAST_CELLS, WORKER_BYTES, least_cap, pool_cells, quota

GIB = 1 << 30
A = Model(name="a", path=Path("/models/a.gguf"), context=2048)
LARGER = msgspec.structs.replace(A, context=4096)
KV_PER_TOKEN = 23040
NOWHERE = Placement()


def persona(name: str, memory: int = 256 * MIB, model: Model = A, growth: str = "none", threads: int = 1) -> Persona:
    return Persona(
        name=name,
        role=name,
        model=model,
        memory=memory,
        cpus=(0, 1),
        threads=threads,
        growth=growth,
        sees=(),
        prompt="Think.",
        first="Go.",
        sampling=Sampling(),
    )


def config(*personas: Persona, max_concurrent: int = 1, cpus: Sequence[int] = (0, 1)) -> Config:
    return Config(
        source=Path("matrix.toml"),
        jar=Jar(name="test", state_dir=Path("/s"), runtime_dir=Path("/r")),
        inference=Inference(mode="fork", max_concurrent=max_concurrent, shares=(tuple(cpus),)),
        restart=Restart(pause=3, intensity=5, window=60, backoff_max=300),
        watchdog=Watchdog(interval=5),
        personas=personas,
        notes=(),
    )


def window(n_ctx: int) -> Window:
    return Window(
        asked=n_ctx, n_ctx=n_ctx, kv_bytes=n_ctx * KV_PER_TOKEN, compute_bytes=8 * MIB, output_bytes=200_000, bookkeeping_bytes=45 * MIB
    )


def figures(weights: int = 92 * MIB, trained: int = 8192, repacked: int = 0) -> Figures:
    buffers = [Buffer(name="CPU", bytes=weights - repacked)] + ([Buffer(name="CPU_REPACK", bytes=repacked)] if repacked else [])
    return Figures(
        description="llama 256M Q4_1",
        n_ctx_train=trained,
        weights=tuple(buffers),
        windows=tuple(window(n) for n in (1024, 2048, 4096, 8192, 16384)),
        process_bytes=50 * MIB,
    )


def host(total: int = 24 * GIB, available: int | None = None, limit: int | None = None) -> HostMemory:
    return HostMemory(
        total_bytes=total,
        available_bytes=total if available is None else available,
        limit_bytes=limit,
        limit_at="" if limit is None else "/sys/fs/cgroup/system.slice/brainjar.service",
    )


def plan(made: Config, here: HostMemory | None = None, known: Mapping[Path, Figures] | None = None) -> Plan:
    return plans.plan(made, dict((known or {A.path: figures()}).items()), here or host())


def header(trained: int = 8192) -> Gguf:
    """Of a model whose tokens take `KV_PER_TOKEN` bytes each."""
    return Gguf(
        path=A.path,
        size_bytes=98 * MIB,
        architecture="llama",
        name="a",
        n_ctx_train=trained,
        n_layer=30,
        n_head_kv=3,
        key_length=64,
        value_length=64,
        vocab_size=49152,
        has_chat_template=True,
        file_type=None,
        tensors_bytes=92 * MIB,
    )


def in_engine(*personas: Persona, placement: Placement = NOWHERE) -> Config:
    """A jar in which an engine computes for all."""
    model = msgspec.structs.replace(A, mode="engine", placement=placement)
    personas = tuple(msgspec.structs.replace(p, model=msgspec.structs.replace(model, context=p.model.context), threads=0) for p in personas)
    made = config(*personas, max_concurrent=len(personas))
    engine = Engine(model=model.shared, personas=tuple(p.name for p in personas), cpus=(0, 1), threads=2)
    return msgspec.structs.replace(made, engines=(engine,))


def engine_plan(made: Config, here: HostMemory | None = None, devices: tuple[Device, ...] = (), places: tuple[Place, ...] = ()) -> Plan:
    quotas = {p.name: quota(p, header()) for p in made.personas}
    ((key, question),) = plans.questions(made, {A.path: 8192}, quotas).items()
    told = msgspec.structs.replace(window(question.contexts[0]), places=places)
    weights = tuple(Buffer(name=place.name, bytes=place.weights_bytes) for place in places) or figures().weights
    known = msgspec.structs.replace(figures(), windows=(told,), devices=devices, weights=weights)
    return plans.plan(made, {key: known}, here or host(), quotas)


def changed(made: Config, sets: Sequence[str]) -> Config:
    """`made` with caps as `--set` would have them."""
    caps = {}
    for one in sets:
        key, value = one.split("=")
        _, name, last = key.split(".")
        assert last == "memory"
        caps[name] = parse_size(value)
    return msgspec.structs.replace(
        made, personas=tuple(msgspec.structs.replace(p, memory=caps.get(p.name, p.memory)) for p in made.personas)
    )


def test_it_adds_up_and_weights_count_once_for_all_who_share_them() -> None:
    made = plan(config(persona("subject"), persona("observer", 320 * MIB), persona("god", 384 * MIB)))
    assert made.fits
    (model,) = made.models
    kv = 2048 * KV_PER_TOKEN
    assert model.personas == ("subject", "observer", "god")
    assert (model.weights_bytes, model.context_bytes) == (92 * MIB, kv + 8 * MIB + 200_000)
    t = made.totals
    assert t.weights_bytes == 92 * MIB
    assert t.zygotes_bytes == model.context_bytes + 50 * MIB + plans.ZYGOTE_BYTES
    assert t.caps_bytes == 960 * MIB
    assert t.snapshots_bytes == 4 * kv  # one each, and one more for who writes at the moment
    assert t.total_bytes == t.weights_bytes + t.zygotes_bytes + t.caps_bytes + t.snapshots_bytes + plans.SUPERVISOR_BYTES
    assert model.total_bytes == t.weights_bytes + t.zygotes_bytes
    with_dashboard = msgspec.structs.replace(made_of := config(persona("subject")), web=Web(enabled=True))
    assert plan(with_dashboard).totals.total_bytes - plan(made_of).totals.total_bytes == plans.DASHBOARD_BYTES


def test_a_life_in_advance_is_counted_for_each_who_is_forked() -> None:
    made = config(persona("subject"), persona("god", 384 * MIB))
    without = plan(made)
    made = msgspec.structs.replace(made, restart=msgspec.structs.replace(made.restart, standby=True))
    t = plan(made).totals
    assert t.standbys_bytes == 2 * (2048 * KV_PER_TOKEN + plans.WORKER_BYTES)
    assert t.total_bytes - without.totals.total_bytes == t.standbys_bytes and without.totals.standbys_bytes == 0
    alone = msgspec.structs.replace(made.personas[0], model=msgspec.structs.replace(A, mode="separate"))
    assert plans._persona(alone, figures(2048), standby=True).standby_bytes == 0, "one that loads for itself is not forked in advance"


def test_the_disk_is_counted_and_too_little_of_it_is_a_note_and_no_refusal() -> None:
    made = config(persona("subject"), persona("god", 320 * MIB))
    kv = 2048 * KV_PER_TOKEN
    roomy = plans.plan(made, {A.path: figures()}, host(), disk_free=6 * kv)
    assert (roomy.totals.disk_bytes, roomy.totals.disk_free_bytes, roomy.notes) == (2 * 3 * kv, 6 * kv, ())
    tight = plans.plan(made, {A.path: figures()}, host(), disk_free=6 * kv - 1)
    assert tight.fits
    assert any("free at /s" in note and "left out" in note for note in tight.notes)
    off = msgspec.structs.replace(made, snapshots=Snapshots(disk=False))
    assert plans.plan(off, {A.path: figures()}, host(), disk_free=0).totals.disk_bytes == 0
    assert plans.plan(off, {A.path: figures()}, host(), disk_free=0).notes == ()
    assert plan(made).notes == (), "a disk of which nothing is known is nothing to note"


def test_a_context_of_its_own_is_a_zygote_of_its_own() -> None:
    made = plan(config(persona("subject"), persona("god", 384 * MIB, LARGER)))
    assert [(m.context, m.personas) for m in made.models] == [(2048, ("subject",)), (4096, ("god",))]
    assert made.totals.weights_bytes == 2 * 92 * MIB
    assert any("loaded 2 times" in note and "2048, 4096" in note for note in made.notes)


def test_repacked_weights_are_told_and_not_counted_twice() -> None:
    made = plan(config(persona("subject")), known={A.path: figures(92 * MIB, repacked=72 * MIB)})
    assert (made.models[0].weights_bytes, made.models[0].repacked_bytes) == (92 * MIB, 72 * MIB)


@given(cap=st.integers(MIB, 512 * MIB), threads=st.integers(1, 16), context=st.sampled_from([1024, 2048, 4096, 8192]))
def test_the_least_cap_is_enough_and_less_is_refused_with_it(cap: int, threads: int, context: int) -> None:
    model = msgspec.structs.replace(A, context=context)
    made = config(persona("subject", cap, model, threads=threads))
    (row,) = plan(made).personas
    assert row.least_cap_bytes % MIB == 0
    assert 0 <= row.least_cap_bytes - window(context).owned_bytes - row.worker_bytes < MIB
    problems = plan(made).problems
    assert bool(problems) == (cap < row.least_cap_bytes)
    if problems:
        (one,) = problems
        assert one.kind == "cap"
        assert one.what.startswith("matrix.toml: persona.subject.memory: ")
        assert f"at least {row.least_cap_bytes // MIB} MiB" in one.change
        assert plan(changed(made, one.set)).fits


def test_a_cap_beyond_a_gibibyte_is_named_to_the_mebibyte() -> None:
    model = msgspec.structs.replace(A, context=16384)
    known = {A.path: figures()}
    many = msgspec.structs.replace(known[A.path].window(16384), kv_bytes=1577 * MIB + 1)
    known[A.path] = msgspec.structs.replace(known[A.path], windows=(many,))
    made = config(persona("subject", 256 * MIB, model))
    (problem,) = plan(made, known=known).problems
    assert plan(changed(made, problem.set), known=known).fits
    assert "GiB" not in problem.change


CAPS = st.integers(100 * MIB, 8 * GIB)


@given(
    caps=st.lists(CAPS, min_size=1, max_size=6),
    total=st.integers(GIB // 2, 32 * GIB),
    limit=st.none() | st.integers(GIB // 2, 40 * GIB),
    growth=st.sampled_from(["none", "context"]),
    max_concurrent=st.integers(1, 6),
)
def test_it_fits_or_says_what_to_change_and_that_makes_it_fit(
    caps: list[int], total: int, limit: int | None, growth: str, max_concurrent: int
) -> None:
    made = config(*(persona(f"p{i}", cap, growth=growth) for i, cap in enumerate(caps)), max_concurrent=min(max_concurrent, len(caps)))
    here = host(total, limit=limit)
    got = plan(made, here)
    assert got.fits == (not got.problems)
    if got.totals.total_bytes > here.bound_bytes:
        assert any(problem.kind == "memory" for problem in got.problems)
    assert here.bound_bytes == (total if limit is None else min(total, limit))
    for problem in got.problems:
        assert "\n" not in problem.words and problem.words.startswith("matrix.toml: ")
    if got.fits:
        return
    sets = [one for problem in got.problems for one in problem.set]
    if all(problem.set for problem in got.problems):
        assert plan(changed(made, sets), here).fits
    else:
        assert "smaller model" in got.problems[0].change  # first, as no cap is worth changing
        assert not plan(changed(made, [f"persona.{row.name}.memory={row.least_cap_bytes // MIB}MiB" for row in got.personas]), here).fits


def test_caps_beyond_the_memory_are_said_as_such() -> None:
    (problem,) = plan(config(persona("subject", 10 * GIB), persona("god", 20 * GIB))).problems
    assert problem.what == "matrix.toml: persona.memory: the caps add up to 30 GiB, this machine has 24 GiB"
    assert problem.change.startswith("lower persona.god.memory to ")


def test_that_no_cap_makes_it_fit_is_said_before_any_cap_is_said_to_be_too_small() -> None:
    problems = plan(config(persona("subject", 20 * MIB), persona("god", 20 * MIB)), host(GIB), {A.path: figures(2 * GIB)}).problems
    assert [problem.kind for problem in problems] == ["memory", "cap", "cap"]
    assert "choose a smaller model" in problems[0].change and not problems[0].set


def test_the_limit_of_the_unit_is_what_counts_where_it_is_less() -> None:
    made = plan(config(persona("subject", GIB)), host(limit=GIB))
    (problem,) = made.problems
    assert "MemoryMax" in problem.what and "brainjar.service" in problem.what and "1 GiB" in problem.what
    assert "raise that limit to" in problem.change
    assert made.totals.bound_bytes == GIB and "brainjar.service" in made.totals.bound
    assert plan(config(persona("subject", GIB)), host(limit=48 * GIB)).totals.bound == "the memory of this machine"


def test_memory_that_others_use_is_a_note_and_no_refusal() -> None:
    made = plan(config(persona("subject", GIB)), host(available=GIB))
    assert made.fits
    assert any("1 GiB" in note and "free now" in note for note in made.notes)


@pytest.mark.parametrize(
    ("context", "growth", "trained", "expected"),
    [
        (2048, "none", 8192, (2048,)),
        (2048, "context", 8192, (2048, 4096, 8192)),
        (3000, "context", 8192, (3000, 6000, 8192)),
        (8192, "context", 8192, (8192,)),
        (16384, "context", 8192, (16384,)),
        (512, "context", 0, (512,)),
    ],
)
def test_a_window_doubles_to_what_the_model_was_trained_for(context: int, growth: str, trained: int, expected: tuple[int, ...]) -> None:
    assert plans.windows(context, growth, trained) == expected


def test_the_dry_run_is_asked_for_every_window_once() -> None:
    made = config(persona("subject", growth="context"), persona("observer", model=LARGER), persona("god"))
    assert plans.asked(made, A.path, 8192) == (2048, 4096, 8192)
    assert plans.asked(config(persona("god", model=LARGER), persona("subject")), A.path, 8192) == (2048, 4096)


@given(cap=st.integers(130 * MIB, 400 * MIB))
def test_where_a_growing_window_ends_is_said(cap: int) -> None:
    made = plan(config(persona("subject", cap, growth="context")))
    (row,) = made.personas
    fits = [n for n in (2048, 4096, 8192) if window(n).owned_bytes + row.worker_bytes <= cap]
    assert row.largest_window == max(fits, default=0)
    if row.largest_window == 8192:
        assert "subject: its cap lets the window reach the 8192 tokens the model was trained for: it will not die of memory" in made.notes
    elif row.largest_window:
        assert f"subject: dies when its window would grow past {row.largest_window} tokens" in made.notes
        assert row.snapshot_bytes == row.largest_window * KV_PER_TOKEN
    else:
        assert made.problems and not any("subject" in note for note in made.notes)


def test_one_whose_window_does_not_grow_has_no_fate() -> None:
    assert plan(config(persona("subject"))).notes == ()


def test_a_context_beyond_the_training_is_noted() -> None:
    assert any("more than the 1024" in note for note in plan(config(persona("subject")), known={A.path: figures(trained=1024)}).notes)


def test_threads_are_those_of_who_may_think_at_once() -> None:
    three = [persona("a", threads=2), persona("b", threads=1), persona("c", threads=2)]
    assert plan(config(*three)).totals.threads == 2
    crowded = plan(config(*three, max_concurrent=2))
    assert (crowded.totals.threads, crowded.totals.cpus, crowded.fits) == (4, 2, True)
    assert any("4 compute threads at once on 2 CPUs" in note for note in crowded.notes)
    assert plan(config(*three, max_concurrent=2, cpus=range(4))).notes == ()


def test_devices_are_listed_once() -> None:
    gpu = Device(name="CUDA0", description="NVIDIA Orin", kind="IGPU", free_bytes=20 * GIB, total_bytes=30 * GIB)
    b = msgspec.structs.replace(A, name="b", path=Path("/models/b.gguf"))
    known = {A.path: msgspec.structs.replace(figures(), devices=(gpu,)), b.path: msgspec.structs.replace(figures(), devices=(gpu,))}
    assert plan(config(persona("x"), persona("y", model=b)), known=known).devices == (gpu,)


def test_a_plan_is_one_json_object_that_reads_back() -> None:
    made = plan(config(persona("subject", 20 * MIB), persona("god", 30 * GIB)))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


# ── an engine computes ────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 4 * GIB), st.sampled_from([256, 768, 2048, 16384]), st.sampled_from(["none", "context"]))
def test_cells_and_what_is_left_to_the_process_are_the_cap_and_no_more(memory: int, context: int, growth: str) -> None:
    model = msgspec.structs.replace(A, context=context, mode="engine")
    one = quota(persona("god", memory, model, growth), header())
    assert one.kv_bytes + one.worker_bytes == memory
    assert 0 <= one.window <= one.cells and one.window <= context
    assert one.cells <= (max(context, 8192) if growth == "context" else context)
    if one.cells:
        assert one.worker_bytes >= WORKER_BYTES
    assert (one.cells >= LEAST_CELLS) == (memory >= least_cap(header()))


def test_an_engine_counts_its_pool_once_and_each_cap_only_what_is_not_in_it() -> None:
    made = in_engine(persona("subject", 108 * MIB, growth="context"), persona("god", 64 * MIB))
    shown = engine_plan(made)
    assert shown.fits
    (model,) = shown.models
    cells = [quota(p, header()).cells for p in made.personas]
    assert cells == [(96 * MIB) // KV_PER_TOKEN, 2048]
    assert (model.mode, model.context, model.personas) == ("engine", sum(cells) + 1, ("subject", "god"))
    assert shown.totals.weights_bytes == 92 * MIB
    assert shown.totals.caps_bytes == 172 * MIB - sum(cells) * KV_PER_TOKEN
    assert [row.largest_window for row in shown.personas] == cells
    assert shown.totals.threads == 2


def test_an_engines_dry_run_is_asked_for_the_pool_as_it_will_be() -> None:
    placement = Placement(gpu_layers=-1, devices=(0, 1))
    made = in_engine(persona("subject"), persona("god", model=LARGER), placement=placement)
    quotas = {p.name: quota(p, header()) for p in made.personas}
    (question,) = plans.questions(made, {A.path: 8192}, quotas).values()
    assert question == plans.Question(path=A.path, contexts=(2048 + 4096 + 1,), sequences=2, placement=placement)
    assert pool_cells(list(quotas.values())) == 2048 + 4096 + 1


def test_a_cap_that_narrows_the_window_is_said_and_one_below_the_least_is_a_problem() -> None:
    narrow = engine_plan(in_engine(persona("god", 32 * MIB)))
    assert narrow.fits and narrow.personas[0].context == (20 * MIB) // KV_PER_TOKEN
    assert any("god: its cap has room for a window of 910 tokens, not for the 2048" in note for note in narrow.notes)
    least = least_cap(header())
    small = engine_plan(in_engine(persona("god", least - 1)))
    assert [problem.kind for problem in small.problems] == ["cap"] and not small.fits
    assert engine_plan(in_engine(persona("god", small.personas[0].least_cap_bytes))).fits


CUDA = Device(name="CUDA0", description="a card", kind="GPU", free_bytes=GIB, total_bytes=GIB)
SHARED = msgspec.structs.replace(CUDA, kind="IGPU")
PLACES = (
    Place(name="CPU", weights_bytes=10 * MIB, context_bytes=0, compute_bytes=MIB),
    Place(name="CUDA0", weights_bytes=700 * MIB, context_bytes=2049 * KV_PER_TOKEN, compute_bytes=7 * MIB),
)


def test_what_is_on_a_gpu_is_counted_there_unless_it_shares_the_hosts_memory() -> None:
    made = in_engine(persona("god"), placement=Placement(gpu_layers=-1))
    own, shared = engine_plan(made, devices=(CUDA,), places=PLACES), engine_plan(made, devices=(SHARED,), places=PLACES)
    assert own.fits and own.models[0].places == PLACES
    assert own.totals.weights_bytes == 10 * MIB and shared.totals.weights_bytes == 710 * MIB
    assert shared.totals.zygotes_bytes - own.totals.zygotes_bytes == PLACES[1].context_bytes + PLACES[1].compute_bytes


def test_a_gpu_that_is_too_small_is_a_problem_and_says_which() -> None:
    made = in_engine(persona("god"), placement=Placement(gpu_layers=-1))
    small = msgspec.structs.replace(CUDA, total_bytes=512 * MIB)
    (problem,) = engine_plan(made, devices=(small,), places=PLACES).problems
    assert "CUDA0 (a card)" in problem.what and "512 MiB" in problem.what and "gpu_layers" in problem.change


def test_who_loads_for_itself_needs_room_for_a_vocabulary_and_shares_the_files_pages() -> None:
    model = msgspec.structs.replace(A, mode="separate")
    made = config(persona("subject", model=model), persona("god", model=model))
    questions = plans.questions(made, {A.path: 8192}, {})
    assert [question.alone for question in questions.values()] == [True]
    shown = plans.plan(made, {key: figures() for key in questions}, host())
    forked = plan(config(persona("subject"), persona("god")))
    assert shown.totals.weights_bytes == 92 * MIB
    assert shown.personas[0].least_cap_bytes - forked.personas[0].least_cap_bytes == 50 * MIB
    assert shown.models[0].context_bytes == 0
