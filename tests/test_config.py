"""The config promises: what is right is resolved, what can never work is refused in one line that says where and why."""

from __future__ import annotations

import math
import os
import typing
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainjar import config, messages, paths, schema
from brainjar.config import Config, Model, Placement, find_config, format_size, load, parse_duration, parse_size
from brainjar.errors import UsageError
from brainjar.repack import Layout
from brainjar.tables import show
from brainjar.units import format_cpus, parse_cpus

CPUS = frozenset(range(4))
MINIMAL = '[model]\nname = "tiny"\n[[persona]]\nname = "subject"\n'
THREE = '[model]\nname = "tiny"\n' + "".join(f'[[persona]]\nname = "{name}"\n' for name in ("subject", "observer", "god"))


def gpu(more: str = "") -> str:
    """Three personas whose model is on a GPU."""
    return THREE.replace('name = "tiny"\n', f'name = "tiny"\ngpu_layers = "all"\n{more}', 1)


@pytest.fixture(autouse=True)
def catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str | None, path: Path | None, base_dir: Path) -> Path:
        if name is not None and name not in ("tiny", "smollm2-135m"):
            raise UsageError(f'no model "{name}" in the catalog; did you mean "tiny"?')
        return base_dir / path if path else Path("/models") / f"{name}.gguf"

    monkeypatch.setattr("brainjar.models.resolve", resolve)


def given_text(tmp_path: Path, text: str | bytes, *overrides: str, **options: object) -> Config:
    path = tmp_path / "jar.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, overrides, **({"allowed_cpus": CPUS} | options))  # type: ignore[arg-type]


def refusal(tmp_path: Path, text: str | bytes, *overrides: str, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        given_text(tmp_path, text, *overrides, **options)
    message = str(caught.value)
    assert message.isprintable(), "one line, nothing that a terminal would act on"
    assert len(message) < 1000
    return message


# ── what is right ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_computes_follows_from_where_the_layers_are(tmp_path: Path) -> None:
    own = "[persona.model]\ngpu_layers = 12\ngpu = 1\n"
    loaded = given_text(tmp_path, THREE + own)
    assert [p.model.mode for p in loaded.personas] == ["fork", "fork", "engine"]
    assert loaded.personas[2].model.placement == Placement(gpu_layers=12, devices=(1,))
    assert [(one.personas, one.threads) for one in loaded.engines] == [(("god",), 4)]
    assert "cannot be forked" in loaded.why_mode(loaded.personas[2].model) and "forks share" in loaded.why_mode(loaded.personas[0].model)
    for mode in ("engine", "separate", "fork"):
        forced = given_text(tmp_path, THREE, f"inference.mode={mode}")
        assert {p.model.mode for p in forced.personas} == {mode}
        assert forced.why_mode(forced.personas[0].model) == f'inference.mode = "{mode}"'


@pytest.mark.parametrize(
    ("more", "placement"),
    [
        ("", Placement(gpu_layers=-1)),
        ("gpu = 2\n", Placement(gpu_layers=-1, devices=(2,))),
        ('gpu = "auto"\nsplit = "row"\n', Placement(gpu_layers=-1, split="row")),
        ("gpu = [1, 0]\nsplit = [3.0, 1.0]\n", Placement(gpu_layers=-1, devices=(1, 0), shares=(3.0, 1.0))),
    ],
)
def test_layers_go_where_the_config_says(tmp_path: Path, more: str, placement: Placement) -> None:
    assert {p.model.placement for p in given_text(tmp_path, gpu(more)).personas} == {placement}
    nowhere = given_text(tmp_path, gpu(more), "model.gpu_layers=0")
    assert {p.model.placement for p in nowhere.personas} == {Placement()}, (
        "nothing is on a GPU: a fork shares it with those that say no more"
    )


def test_where_engines_compute_for_all_everybody_may_think_at_once_and_they_share_out_the_cpus(tmp_path: Path) -> None:
    loaded = given_text(tmp_path, THREE, "inference.mode=engine")
    assert loaded.inference.max_concurrent == 3 and set(loaded.inference.shares) == {(0, 1, 2, 3)}
    assert [(p.threads, p.cpus) for p in loaded.personas] == [(0, (0, 1, 2, 3))] * 3
    assert [(one.personas, one.cpus, one.threads) for one in loaded.engines] == [(("subject", "observer", "god"), (0, 1, 2, 3), 4)]
    bounded = given_text(tmp_path, THREE, "inference.mode=engine", "inference.max_concurrent=2", "inference.threads=3")
    assert bounded.inference.max_concurrent == 2 and bounded.engines[0].threads == 3
    two = given_text(tmp_path, THREE + '[persona.model]\nname = "smollm2-135m"\n', "inference.mode=engine")
    assert [(one.cpus, one.threads) for one in two.engines] == [((0, 1), 2), ((2, 3), 2)]


@pytest.mark.parametrize("concurrent", [1, 2, 4])
def test_an_engine_beside_forks_takes_no_more_threads_than_a_share_has(tmp_path: Path, concurrent: int) -> None:
    text = THREE + "[persona.model]\ngpu_layers = 1\n" + '[[persona]]\nname = "fourth"\nrole = "god"\n'
    loaded = given_text(tmp_path, text, f"inference.max_concurrent={concurrent}")
    assert loaded.engines[0].threads * concurrent <= 4


def test_contexts_that_differ_need_no_second_engine_but_a_second_fork_server(tmp_path: Path) -> None:
    text = THREE + "[persona.model]\ncontext = 512\n"
    assert len(given_text(tmp_path, text).loads) == 2
    for mode in ("engine", "separate"):
        assert len(given_text(tmp_path, text, f"inference.mode={mode}").loads) == 1
    assert given_text(tmp_path, text, "inference.mode=engine").engines[0].personas == ("subject", "observer", "god")


def test_threads_of_one_that_an_engine_computes_for_are_said_not_to_count(tmp_path: Path) -> None:
    (note,) = given_text(tmp_path, THREE + "threads = 1\n", "inference.mode=engine").notes
    assert "persona.god.threads" in note and "not used" in note


def test_weights_are_repacked_as_was_measured_and_as_the_config_says_before_that(tmp_path: Path) -> None:
    loaded = given_text(tmp_path, THREE)
    (model,) = loaded.models
    assert loaded.repacks(model) and loaded.layout(model) == "", "llama.cpp's own default, where nothing is known"
    slower = msgspec.structs.replace(loaded, layouts={model.path: Layout(repack=False, why="as in the file: it is faster")})
    assert not slower.repacks(model) and slower.layout(model) == "as in the file: it is faster"
    for written in (True, False):
        said = given_text(tmp_path, THREE, f"inference.repack={str(written).lower()}")
        said = msgspec.structs.replace(said, layouts={model.path: Layout(repack=not written, why="no")})
        assert said.repacks(model) is written and said.layout(model).endswith("by inference.repack")


def test_threads_of_a_model_are_the_most_that_compute_for_one_who_thinks_with_it(tmp_path: Path) -> None:
    two = given_text(tmp_path, THREE + "threads = 3\n", "inference.max_concurrent=1", "inference.threads=2")
    assert two.threads_of(two.models[0]) == 3
    engine = given_text(tmp_path, THREE, "inference.mode=engine", "inference.threads=4")
    assert engine.threads_of(engine.models[0]) == 4


def test_matrix_is_what_it_says() -> None:
    loaded = load(paths.config_dir() / "matrix.toml", allowed_cpus=CPUS)
    assert [(p.name, p.role, p.memory >> 20, p.sees, p.growth) for p in loaded.personas] == [
        ("subject", "subject", 108, (), "context"),
        ("observer", "observer", 240, ("subject",), "context"),
        ("god", "god", 320, ("subject", "observer"), "context"),
    ]
    assert {(p.cpus, p.threads) for p in loaded.personas} == {((0, 1, 2, 3), 4)}
    assert loaded.models == (Model(name="smollm2-135m", path=Path("/models/smollm2-135m.gguf"), context=768),)
    assert (loaded.inference.mode, loaded.inference.max_concurrent, loaded.engines) == ("auto", 1, ())
    restart = loaded.restart
    assert (restart.pause, restart.intensity, restart.window, restart.backoff_max) == (3.0, 5, 60.0, 300.0)
    assert loaded.watchdog.interval == 5.0
    assert loaded.snapshots == config.Snapshots(), "what it shows as set is what is the default"


def test_the_least_config_has_defaults_that_work(tmp_path: Path) -> None:
    loaded = given_text(tmp_path, MINIMAL)
    (persona,) = loaded.personas
    assert persona.role == "subject"
    assert persona.memory == 256 << 20
    assert persona.sampling == messages.Sampling()
    assert loaded.restart.pause == 3.0
    assert loaded.notes == ()


@pytest.mark.parametrize("role", ["subject", "observer", "god", "peer", "isolated"])
def test_shipped_prompts_are_short_and_whole(role: str) -> None:
    front, body = config.read_prompt(paths.prompt_file(role))
    assert 60 <= len(body.split()) <= 110
    assert front.first != schema.FIRST
    assert "---" not in body


def test_subject_is_not_told_that_it_is_watched() -> None:
    front, body = config.read_prompt(paths.prompt_file("subject"))
    for word in ("observ", "watch", "god", "others", "see you"):
        assert word not in (body + front.first).lower()


def test_a_model_of_its_own_keeps_what_it_does_not_say(tmp_path: Path) -> None:
    god_first = '[[persona]]\nname = "god"\n[persona.model]\npath = "big.gguf"\n[[persona]]\nname = "subject"\n'
    text = '[model]\nname = "tiny"\ncontext = 1024\n' + god_first
    loaded = given_text(tmp_path, text)
    god, subject = loaded.personas
    assert (god.model.path, god.model.name, god.model.context) == (tmp_path / "big.gguf", None, 1024)
    assert subject.model.name == "tiny"
    assert loaded.models == (god.model, subject.model)


def test_personas_with_equal_models_share_one(tmp_path: Path) -> None:
    same = THREE + '[persona.model]\nname = "tiny"\n'
    assert len(given_text(tmp_path, same).models) == 1
    assert len(given_text(tmp_path, same + "context = 512\n").models) == 2


def test_model_option_takes_the_place_of_the_default_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    text = THREE + '[persona.model]\nname = "smollm2-135m"\n'
    subject, _, god = given_text(tmp_path, text, model="x.gguf").personas
    assert (subject.model.name, subject.model.path) == (None, Path("/usr/x.gguf"))
    assert god.model.name == "smollm2-135m"
    assert given_text(tmp_path, text, model="smollm2-135m").personas[0].model.name == "smollm2-135m"
    assert given_text(tmp_path, text, model="../x/y").personas[0].model.path == Path("/x/y")


def test_paths_are_relative_to_the_file_and_to_the_shell_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.md").write_text("From beside the file.")
    shell = tmp_path / "shell"
    shell.mkdir()
    (shell / "mine.md").write_text("From the shell.")
    monkeypatch.chdir(shell)
    text = MINIMAL + 'prompt = "mine.md"\n'
    assert given_text(tmp_path, text).personas[0].prompt == "From beside the file."
    assert given_text(tmp_path, text, "persona.subject.prompt=mine.md").personas[0].prompt == "From the shell."


def test_directories_of_the_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert given_text(tmp_path, MINIMAL).jar.state_dir == Path("/xdg/brainjar/brainjar")
    own = '[jar]\nname = "a"\nstate_dir = "s"\nruntime_dir = "/r"\n' + MINIMAL
    loaded = given_text(tmp_path, own).jar
    assert (loaded.state_dir, loaded.runtime_dir) == (tmp_path / "s", Path("/r"))
    assert given_text(tmp_path, own, state_dir=Path("/elsewhere")).jar.state_dir == Path("/elsewhere")


def test_front_matter_sets_first_and_sampling_and_the_config_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_bytes(
        b'---\r\nfirst = "Hello."\r\n[sampling]\r\ntemperature = 0.1\r\ntop_k = 3\r\nmin_p = 0.2\r\n---\r\n\r\nYou are.\r\n'
    )
    text = "[sampling]\ntop_k = 4\nmin_p = 0.3\n" + MINIMAL + 'prompt = "p.md"\n[persona.sampling]\nmin_p = 0.4\nseed = 7\n'
    (persona,) = given_text(tmp_path, text).personas
    assert (persona.prompt, persona.first) == ("You are.", "Hello.")
    assert persona.sampling == messages.Sampling(temperature=0.1, top_k=4, min_p=0.4, seed=7)


def test_sampling_has_the_fields_that_messages_have() -> None:
    assert schema.RawSampling.__struct_fields__ == messages.Sampling.__struct_fields__


def test_sees_is_expanded_to_others_each_once(tmp_path: Path) -> None:
    loaded = given_text(tmp_path, THREE + 'sees = ["observer", "*", "observer"]\n')
    assert loaded.personas[2].sees == ("observer", "subject")


@pytest.mark.parametrize(
    ("written", "cpus"),
    [('"auto"', (0, 1, 2, 3)), ("[2, 0, 2]", (0, 2)), ('"0-2"', (0, 1, 2)), ('"0,2-3"', (0, 2, 3)), ('"3"', (3,))],
)
def test_cpus_as_written(tmp_path: Path, written: str, cpus: tuple[int, ...]) -> None:
    (persona,) = given_text(tmp_path, MINIMAL + f"cpus = {written}\n").personas
    assert (persona.cpus, persona.threads) == (cpus, len(cpus))


def test_auto_cpus_give_each_that_thinks_at_once_a_slice_of_its_own(tmp_path: Path) -> None:
    odd = frozenset({1, 3, 5, 7, 9})
    loaded = given_text(tmp_path, THREE, "inference.max_concurrent=2", allowed_cpus=odd)
    assert [p.cpus for p in loaded.personas] == [(1, 3, 5), (7, 9), (1, 3, 5)]


@settings(deadline=None)  # reads files
@given(cores=st.integers(1, 40), concurrent=st.integers(1, 3))
def test_slices_cover_the_cores_and_none_is_empty(tmp_path_factory: pytest.TempPathFactory, cores: int, concurrent: int) -> None:
    loaded = given_text(
        tmp_path_factory.getbasetemp(), THREE, f"inference.max_concurrent={concurrent}", allowed_cpus=frozenset(range(cores))
    )
    slices = list(dict.fromkeys(p.cpus for p in loaded.personas))
    assert len(slices) == loaded.inference.max_concurrent == min(cores, concurrent)
    assert sorted(cpu for cpus in slices for cpu in cpus) == list(range(cores))


def test_fewer_cores_than_thinkers_lowers_their_number_and_says_so(tmp_path: Path) -> None:
    loaded = given_text(tmp_path, THREE, "inference.max_concurrent=3", allowed_cpus=frozenset({0, 5}))
    assert loaded.inference.max_concurrent == 2
    (note,) = loaded.notes
    assert "max_concurrent" in note and "from 3 to 2" in note and "0,5" in note


def test_cpus_are_asked_of_the_kernel(tmp_path: Path) -> None:
    (persona,) = given_text(tmp_path, MINIMAL, allowed_cpus=None).personas
    assert set(persona.cpus) == os.sched_getaffinity(0)


def test_threads_of_the_persona_before_those_of_the_jar(tmp_path: Path) -> None:
    text = "[inference]\nthreads = 2\n" + THREE + "threads = 1\n"
    assert [p.threads for p in given_text(tmp_path, text).personas] == [2, 2, 1]
    assert given_text(tmp_path, text, "persona.god.threads=auto").personas[2].threads == 4


def test_backoff_never_ends_below_the_pause(tmp_path: Path) -> None:
    assert given_text(tmp_path, MINIMAL, "restart.pause=10m").restart.backoff_max == 600.0


# ── the command line over the file ────────────────────────────────────────────────────────────────────────────────────


def test_any_key_can_be_set(tmp_path: Path) -> None:
    loaded = given_text(
        tmp_path,
        THREE,
        "persona.subject.memory=8GiB",
        "persona.god.cpus=2",
        "persona.observer.cpus=0,2-3",
        "persona.god.sees=['*']",
        "persona.god.sampling.temperature=0.5",
        "persona.subject.sampling={top_k=9, seed=1}",
        "jar.name=x",
        "restart.pause = 0s",
        'model.name="smollm2-135m"',
        "model.context=4096",
        "restart.pause=1s",
    )
    subject, observer, god = loaded.personas
    assert subject.memory == 8 << 30
    assert (god.cpus, observer.cpus) == ((2,), (0, 2, 3))
    assert god.sees == ("subject", "observer")
    assert god.sampling.temperature == 0.5
    assert (subject.sampling.top_k, subject.sampling.seed) == (9, 1)
    assert (loaded.jar.name, loaded.restart.pause) == ("x", 1.0), "the later one wins"
    assert (god.model.name, god.model.context) == ("smollm2-135m", 4096)


def test_a_digit_stays_text_where_text_is_wanted(tmp_path: Path) -> None:
    assert given_text(tmp_path, MINIMAL, "jar.name=7").jar.name == "7"
    assert "found 7" in refusal(tmp_path, "[jar]\nname = 7\n" + MINIMAL)


def test_a_model_path_that_is_set_takes_the_place_of_the_name_in_the_file(tmp_path: Path) -> None:
    model = given_text(tmp_path, MINIMAL, "model.path=/x.gguf").personas[0].model
    assert (model.name, model.path) == (None, Path("/x.gguf"))
    own = THREE + '[persona.model]\npath = "y.gguf"\n'
    assert given_text(tmp_path, own, "persona.god.model.name=tiny").personas[2].model.name == "tiny"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("persona.subjct.memory=1GiB", ["--set persona.subjct.memory", '"subjct"', 'did you mean "subject"']),
        ("persona.subject.memry=1GiB", ["--set persona.subject.memry", "unknown key", 'did you mean "memory"']),
        ("restrat.pause=1s", ["--set restrat", "unknown key", 'did you mean "restart"']),
        ("restart.pause=5 apples", ["--set restart.pause", '"5 apples"', "a duration"]),
        ("persona.subject.memory=8", ["--set persona.subject.memory", "found 8", "a size", '"256MiB"']),
        ("persona.subject.memory", ["--set persona.subject.memory", "wanted KEY=VALUE"]),
        ("=3", ["--set =3", "wanted KEY=VALUE"]),
        ("persona..memory=3", ["wanted KEY=VALUE"]),
        ("persona.subject=3", ["--set persona.subject", "wanted a key of persona"]),
        ("persona=3", ["--set persona", "found 3", "[[persona]]"]),
        ("jar=3", ["--set jar", "found 3", "a table"]),
        ("model.name.x=3", ["model.name", '"tiny"', "a table"]),
        ("persona.subject.name=other", ["--set persona.subject.name", "change it in"]),
        ("model.name=tny", ["--set model.name", '"tny"', "tiny"]),
        ("jar.name='a'\nx=1", ["--set jar.name", "wanted a name"]),
    ],
)
def test_a_wrong_override_is_named_as_one(tmp_path: Path, override: str, said: list[str]) -> None:
    message = refusal(tmp_path, MINIMAL, override)
    for words in said:
        assert words in message
    assert "jar.toml: persona" not in message


def test_a_wrong_model_option_is_named_as_one(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL, model="tny")
    assert message.startswith("--model: ") and '"tny"' in message


# ── what can never work ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # not TOML, not UTF-8, too much of it
        (b"\xff\xfe[jar]", ["not UTF-8", "0xff", "line 1"]),
        (b"[jar]\n# \xe9\n", ["not UTF-8", "0xe9", "line 2"]),
        ("[jar]\nname = \n", ["not TOML", "line 2"]),
        ("[jar]\nname = 'a'\nname = 'b'\n", ["not TOML", "line 3"]),
        ("x = " + "[" * 20000, ["not TOML"]),
        ("x = " + "9" * 20000, ["not TOML"]),
        ("#" * (1 << 20) + "\n", ["too large", "1048576"]),
        # keys
        ("[jar]\nnme = 'a'\n", ["jar.nme", "unknown key", 'did you mean "name"', "state_dir"]),
        ("[restrat]\n", ["restrat", "unknown key", 'did you mean "restart"']),
        ("'\\u001b[31m' = 1\n", ["unknown key"]),
        ('"\\u001b[31m" = 1\n', ["\\x1b[31m", "unknown key"]),
        (MINIMAL + "memroy = '1GiB'\n", ["persona.subject.memroy", 'did you mean "memory"']),
        (MINIMAL + "[persona.sampling]\ntemp = 1\n", ["persona.subject.sampling.temp", 'did you mean "temperature"']),
        (MINIMAL + "[persona.mortality]\ngrwth = 1\n", ["persona.subject.mortality.grwth", 'did you mean "growth"']),
        (MINIMAL + "zzzzzz = 1\n", ["persona.subject.zzzzzz", "unknown key", "known: "]),
        # personas
        ("", ["persona", "found none", "[[persona]]"]),
        ("persona = []\n", ["persona", "found none"]),
        ("[persona]\nname = 'a'\n", ["persona", "a table", "[[persona]]"]),
        ("persona = [1]\n", ["persona", "[1]", "[[persona]]"]),
        ("[[persona]]\nrole = 'god'\n", ["persona.#1", "no name", "a name of"]),
        (MINIMAL * 1 + "[[persona]]\nname = 'subject'\n", ["persona", '"subject" twice']),
        ("[[persona]]\nname = 'Subject'\n", ["persona.Subject.name", '"Subject"', "a-z"]),
        ("[[persona]]\nname = 'jar'\n", ["persona.jar.name", 'not "jar"']),
        ("[[persona]]\nname = ''\n", ["persona.#1.name", '""']),
        ("[[persona]]\nname = '-a'\n", ['"-a"']),
        ('[[persona]]\nname = "a\\n"\n', ["a\\n", "a name of"]),
        (f"[[persona]]\nname = '{'a' * 33}'\n", ["1 to 32"]),
        ("[[persona]]\nname = '../x'\n", ["a name of"]),
        ("[[persona]]\nname = 3\n", ["found 3", "a name of"]),
        (
            "[model]\nname='tiny'\n" + "".join(f"[[persona]]\nname='p{n}'\nrole='peer'\n" for n in range(1025)),
            ["persona", "1025", "at most 1024"],
        ),
        ("[jar]\nname = 'A b'\n" + MINIMAL, ["jar.name", '"A b"', "a-z"]),
        # roles and prompts
        (
            "[model]\nname = 'tiny'\n[[persona]]\nname = 'subjekt'\n",
            ["persona.subjekt.role", '"subjekt"', 'did you mean "subject"', "prompt ="],
        ),
        (MINIMAL + "role = 'demon'\n", ["persona.subject.role", '"demon"', "known: god"]),
        (MINIMAL + "role = '../../x'\n", ["persona.subject.role", "a name of"]),
        (MINIMAL + "prompt = 'none.md'\n", ["none.md", "prompt not found"]),
        (MINIMAL + "prompt = '.'\n", ["prompt unreadable", "a directory"]),
        (MINIMAL + "prompt = ''\n", ["persona.subject.prompt", '""', "path of a file"]),
        (MINIMAL + 'prompt = "a\\u0000"\n', ["persona.subject.prompt", "path of a file"]),
        # sight
        (THREE + "sees = ['subjct']\n", ["persona.god.sees", '"subjct"', 'did you mean "subject"']),
        (THREE + "sees = ['god']\n", ["persona.god.sees", '"god"', "nobody sees itself"]),
        (THREE + "sees = '*'\n", ["persona.god.sees", '"*"', "a list of names"]),
        (THREE + "sees = [1]\n", ["persona.god.sees", "[1]", "a list of names"]),
        # models
        ("[[persona]]\nname = 'subject'\n", ["model", "neither name nor path", "subject"]),
        ("[model]\nname = 'tny'\n[[persona]]\nname = 'subject'\n", ["jar.toml: model.name", '"tny"', "tiny"]),
        ("[model]\nname = 'tiny'\npath = 'x'\n[[persona]]\nname = 'subject'\n", ["model", "both name and path", "exactly one"]),
        (MINIMAL + "[persona.model]\nname = 'tiny'\npath = 'x'\n", ["persona.subject.model", "both name and path"]),
        (MINIMAL + "[persona.model]\nname = 'tny'\n", ["persona.subject.model.name", '"tny"']),
        (MINIMAL + "model = 'tiny'\n", ["persona.subject.model", '"tiny"', "a table"]),
        ("[model]\ncontext = 255\n", ["model.context", "255", "256 to 1048576"]),
        ("[model]\ncontext = 1048577\n", ["model.context", "1048577"]),
        ("[model]\ncontext = 2048.0\n", ["model.context", "2048.0", "a number of tokens"]),
        ("[model]\ncontext = true\n", ["model.context", "true"]),
        ("[model]\ngpu_layers = -2\n", ["model.gpu_layers", "-2", '"all"']),
        ("[model]\ngpu_layers = 'some'\n", ["model.gpu_layers", '"some"', '"all"']),
        ("[inference]\nmode = 'fork'\n" + gpu(), ["model.gpu_layers", 'found "all"', "cannot be forked", 'mode = "engine"']),
        ("[inference]\nmode = 'separate'\n" + gpu(), ["model.gpu_layers", 'found "all"', "a copy onto the GPU"]),
        (gpu("gpu = [0, 0]\n"), ["model.gpu", "[0, 0]", "each GPU once"]),
        (gpu("gpu = []\n"), ["model.gpu", "[]", '"auto"']),
        (gpu("gpu = [0, 1]\nsplit = [1.0, 2.0, 3.0]\n"), ["model.split", "[1.0, 2.0, 3.0]", "2 numbers"]),
        (gpu("split = [1.0, 2.0]\n"), ["model.split", "model.gpu to name as many"]),
        (gpu("gpu = [0, 1]\nsplit = [0.0, 0.0]\n"), ["model.split", "at least one that is not 0"]),
        (gpu("split = 'tensor'\n"), ["model.split", '"tensor"', '"layer", "row"']),
        ("[model]\ngpu = 'all'\n", ["model.gpu", '"all"', '"auto"']),
        # inference
        ("[inference]\nmode = 'separate'\nrepack = true\n" + THREE, ["inference.repack", "found true", "each worker's own"]),
        ("[inference]\nrepack = 'yes'\n" + THREE, ["inference.repack", '"yes"', '"auto", true or false']),
        ("[inference]\nmode = 'gpu'\n", ["inference.mode", '"gpu"', '"separate"']),
        ("[inference]\nmode = 'engine'\nthreads = 5\n" + THREE, ["inference.threads", "found 5", "1 to 4", "of an engine"]),
        ("[inference]\nmode = 'engine'\nmax_concurrent = 4\n" + THREE, ["inference.max_concurrent", "found 4", "1 to 3"]),
        ("[inference]\nmax_concurrent = 0\n", ["inference.max_concurrent", "found 0", "1 to the number"]),
        ("[inference]\nmax_concurrent = 4\n" + THREE, ["inference.max_concurrent", "found 4", "1 to 3"]),
        ("[inference]\nthreads = 0\n", ["inference.threads", "found 0"]),
        ("[inference]\nthreads = 5\n" + THREE, ["inference.threads", "found 5", "1 to 4", "subject"]),
        # restart, watchdog
        ("[restart]\nstrategy = 'one_for_any'\n", ["restart.strategy", '"one_for_any"', '"one_for_one", "one_for_all"']),
        ("[restart]\ngive_up = true\n", ["restart.give_up", "true", '"never", "persona" or "jar"']),
        ("[restart]\nreset = 3\n", ["restart.reset", "found 3", "a duration"]),
        (MINIMAL + 'after = ["subject"]\n', ["persona.subject.after", '"subject"', "nobody starts after itself"]),
        (MINIMAL + 'after = ["god"]\n', ["persona.subject.after", '"god"', "no persona is named"]),
        (
            THREE.replace('"subject"\n', '"subject"\nafter = ["god"]\n') + 'after = ["subject"]\n',
            ["persona.after", "subject after god after subject", "none could ever start"],
        ),
        ("[restart]\npause = 3\n", ["restart.pause", "found 3", "a duration", '"3s"']),
        ("[restart]\npause = '3'\n", ["restart.pause", '"3"']),
        ("[restart]\npause = '3MiB'\n", ["restart.pause", '"3MiB"', "a duration"]),
        ("[restart]\npause = '-3s'\n", ["restart.pause", '"-3s"']),
        ("[restart]\npause = 'nan'\n", ["restart.pause", '"nan"']),
        ("[restart]\npause = nan\n", ["restart.pause", "nan"]),
        ("[restart]\npause = '3650d'\n", ["restart.pause", '"3650d"', "under 10 years"]),
        ("[restart]\nwindow = '0s'\n", ["restart.window", '"0s"']),
        ("[restart]\nintensity = 0\n", ["restart.intensity", "found 0"]),
        ("[restart]\nintensity = 2.5\n", ["restart.intensity", "2.5"]),
        ("[restart]\nbackoff_max = '1s'\n" + MINIMAL, ["restart.backoff_max", '"1s"', "restart.pause (3s)"]),
        ("[watchdog]\ninterval = '0s'\n", ["watchdog.interval", '"0s"', '"100ms"']),
        ("[watchdog]\ninterval = '2h'\n", ["watchdog.interval", '"2h"', '"1h"']),
        ("[watchdog]\nhost_memory = 101\n", ["watchdog.host_memory", "101", "percentage"]),
        ("[watchdog]\ntemperature = nan\n", ["watchdog.temperature", "nan", "degrees"]),
        ("[watchdog]\ntemperature = inf\n", ["watchdog.temperature", "inf"]),
        # snapshots
        ("[snapshots]\ndisk = 'no'\n", ["snapshots.disk", '"no"', "true or false"]),
        ("[snapshots]\nwrite_budget = '1KiB'\n", ["snapshots.write_budget", '"1KiB"', "1MiB to 16TiB"]),
        ("[snapshots]\nwrite_budget = 4\n", ["snapshots.write_budget", "found 4", '"4GiB"']),
        ("[snapshots]\nwrite_buget = '4GiB'\n", ["write_buget", "write_budget"]),
        # memory, cpus, threads
        (MINIMAL + "memory = 256\n", ["persona.subject.memory", "found 256", '"256MiB"']),
        (MINIMAL + "memory = '256'\n", ["persona.subject.memory", '"256"']),
        (MINIMAL + "memory = '0B'\n", ["persona.subject.memory", '"0B"', "from 1B"]),
        (MINIMAL + "memory = '17TiB'\n", ["persona.subject.memory", '"17TiB"', "to 16TiB"]),
        (MINIMAL + "memory = '-1MiB'\n", ["persona.subject.memory", '"-1MiB"']),
        (MINIMAL + "memory = '3s'\n", ["persona.subject.memory", '"3s"']),
        (MINIMAL + "cpus = [7]\n", ["persona.subject.cpus", '"7"', "may use: 0-3"]),
        (MINIMAL + "cpus = '2-5'\n", ["persona.subject.cpus", '"2-5"', "may use: 0-3"]),
        (MINIMAL + "cpus = []\n", ["persona.subject.cpus", "[]", '"auto"']),
        (MINIMAL + "cpus = [-1]\n", ["persona.subject.cpus", "[-1]"]),
        (MINIMAL + "cpus = [true]\n", ["persona.subject.cpus", "[true]"]),
        (MINIMAL + "cpus = '0-99999999999'\n", ["persona.subject.cpus", "0-99999999999"]),
        (MINIMAL + "cpus = '3-1'\n", ["persona.subject.cpus", "3-1"]),
        (MINIMAL + "cpus = 'all'\n", ["persona.subject.cpus", '"all"', '"0-3"']),
        (MINIMAL + "cpus = 2\n", ["persona.subject.cpus", "found 2"]),
        (MINIMAL + "threads = 5\n", ["persona.subject.threads", "found 5", "1 to 4"]),
        (MINIMAL + "cpus = [1]\nthreads = 2\n", ["persona.subject.threads", "found 2", "1 to 1"]),
        # sampling and the rest
        (MINIMAL + "[persona.sampling]\ntemperature = nan\n", ["persona.subject.sampling.temperature", "nan"]),
        (MINIMAL + "[persona.sampling]\ntemperature = -1\n", ["persona.subject.sampling.temperature", "-1"]),
        (MINIMAL + "[persona.sampling]\nmax_tokens = 1025\n", ["jar.toml: persona.subject.sampling.max_tokens", "1025", "(1024)"]),
        ("[sampling]\nmax_tokens = 1025\n" + MINIMAL, ["jar.toml: sampling.max_tokens", "1025", "(1024)"]),
        ("[sampling]\nseed = " + "9" * 3000 + "\n", ["sampling.seed", "too many digits"]),
        ("sampling = 1979-05-27\n", ["sampling", "1979-05-27", "a table"]),
        (MINIMAL + "when = 'sometimes'\n", ["persona.subject.when", '"sometimes"', '"on_death"']),
        (MINIMAL + "told = 'yes'\n", ["persona.subject.told", '"yes"', "true or false"]),
        (MINIMAL + "sandbox = 1\n", ["persona.subject.sandbox", "found 1", "a table"]),
    ],
)
def test_what_can_never_work_is_refused_in_words(tmp_path: Path, text: str | bytes, said: list[str]) -> None:
    message = refusal(tmp_path, text)
    for words in [*said, str(tmp_path)]:
        assert words in message


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", ["prompt empty"]),
        ("---\nfirst = 'x'\n---\n  \n", ["prompt empty"]),
        ("---\nfirst = 'x'\n", ["front matter not closed"]),
        ("---\nfirst = \n---\nYou are.", ["not TOML", "line 2"]),
        ("---\nfrist = 'x'\n---\nYou are.", ["frist", "unknown key", 'did you mean "first"']),
        ("---\nfirst = ''\n---\nYou are.", ["first", "1 to 4096"]),
        ("---\n[sampling]\ntop_p = 2\n---\nYou are.", ["sampling.top_p", "found 2", "0 to 1"]),
        (b"\xff", ["prompt is not UTF-8"]),
        ("x" * 65537, ["prompt too large", "65536"]),
    ],
)
def test_a_bad_prompt_is_refused_by_its_own_name(tmp_path: Path, prompt: str | bytes, said: list[str]) -> None:
    (tmp_path / "bad.md").write_bytes(prompt if isinstance(prompt, bytes) else prompt.encode())
    message = refusal(tmp_path, MINIMAL + "prompt = 'bad.md'\n")
    for words in [*said, "bad.md"]:
        assert words in message


def test_a_prompt_of_just_64_kib_is_read(tmp_path: Path) -> None:
    (tmp_path / "big.md").write_text("x" * 65536)
    assert len(given_text(tmp_path, MINIMAL + "prompt = 'big.md'\n").personas[0].prompt) == 65536


def test_a_config_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml: config not found"):
        load(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="found a directory, wanted a file"):
        load(tmp_path)
    with pytest.raises(UsageError, match="config unreadable"):
        load(tmp_path / "\0")


def test_a_config_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jar.toml"
    path.write_text(MINIMAL)
    if os.geteuid() == 0:  # root reads everything: the kernel's refusal has to be played

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    else:
        path.chmod(0)
    with pytest.raises(UsageError, match=r"jar\.toml: config unreadable: permission denied"):
        load(path)


def test_where_the_config_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(Path("x.toml")) == (Path("x.toml"), None)
    shipped, said = find_config(None)
    assert shipped == paths.config_dir() / "matrix.toml" and said is not None and str(shipped) in said
    (tmp_path / "brainjar.toml").write_text(MINIMAL)
    own, said = find_config(None)
    assert own == Path("brainjar.toml") and said is not None and "./brainjar.toml" in said
    assert load(own).personas[0].name == "subject"


@settings(deadline=None)  # reads files
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_file_whatever_ends_in_anything_but_a_usage_error(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError):
        load(path)


_toml = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=6
)
_keys = [
    f"{table}.{field}" if table else field
    for table, cls in {
        "": schema.RawConfig,
        "jar": schema.RawJar,
        "model": schema.RawModel,
        "inference": schema.RawInference,
        "restart": schema.RawRestart,
        "watchdog": schema.RawWatchdog,
        "snapshots": schema.RawSnapshots,
        "sampling": schema.RawSampling,
        "persona.god": schema.RawPersona,
    }.items()
    for field in cls.__struct_fields__
]


@settings(deadline=None)  # reads files
@given(key=st.sampled_from(_keys), value=_toml)
def test_no_value_of_any_key_ends_in_anything_but_a_usage_error(tmp_path_factory: pytest.TempPathFactory, key: str, value: object) -> None:
    try:
        given_text(tmp_path_factory.getbasetemp(), THREE, f"{key}={show(value)}")
    except UsageError as error:
        assert str(error).isprintable()


# ── sizes, times, CPU lists ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "count"),
    [("256MiB", 256 << 20), ("1.5 GiB", 3 << 29), ("8GB", 8 * 10**9), ("0B", 0), ("7kib", 7168), (" 1TiB ", 1 << 40), ("0.5B", 0)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "1", "MiB", "1 X", "1e3B", "-1B", "1MiBs", "1,5GiB", "١MiB", "1" * 30 + "B", "inf B", "1MiB\n1"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a number and one of B, KiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (256 << 20, "256 MiB"),
        (3 << 29, "1.5 GiB"),
        (300_000_000, "286.1 MiB"),
        (-1024, "-1 KiB"),
    ],
)
def test_sizes_as_shown(count: int, text: str) -> None:
    assert format_size(count) == text


def test_a_size_is_never_shown_as_1024_of_a_unit() -> None:
    assert format_size((1 << 20) - 1) == "1 MiB"


@given(st.integers(0, 1 << 60))
def test_a_size_that_is_shown_reads_back_to_a_tenth_of_its_unit(count: int) -> None:
    text = format_size(count)
    assert abs(parse_size(text) - count) <= max(1, math.ceil(parse_size("1" + text.split()[1]) / 20))


@given(st.integers(1, 1023), st.integers(0, 5))
def test_a_size_in_whole_units_reads_back_exactly(number: int, power: int) -> None:
    assert parse_size(format_size(number << 10 * power)) == number << 10 * power


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3s", 3), ("500ms", 0.5), ("5m", 300), ("1.5h", 5400), ("1h30m", 5400), ("1h 30m", 5400), ("2d", 172800), ("1w", 604800), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "s", "-3s", "3 x", "1e3s", "inf", "nan", "3S", "1m" * 7, "3s!", "9" * 30 + "s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a number and one of ms"):
        parse_duration(text)


@given(st.dictionaries(st.sampled_from(["w", "d", "h", "m", "s", "ms"]), st.integers(0, 10**6), min_size=1))
def test_a_duration_is_the_sum_of_its_parts(parts: dict[str, int]) -> None:
    units = {unit: Fraction(seconds) for unit, seconds in (("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("w", 604800))}
    units["ms"] = Fraction(1, 1000)
    seconds = parse_duration("".join(f"{number}{unit}" for unit, number in parts.items()))
    assert seconds == float(sum((number * units[unit] for unit, number in parts.items()), Fraction()))


@given(st.sets(st.integers(0, 8191), min_size=1, max_size=50))
def test_cpu_lists_read_back(cpus: set[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == tuple(sorted(cpus))


def test_cpu_lists_are_shown_ascending_each_once() -> None:
    assert format_cpus([3, 1, 1, 2, 7]) == "1-3,7"
    assert format_cpus([]) == "none"


@pytest.mark.parametrize("text", ["", ",", "a", "3-1", "8192", "0-8192", "1-", "-1", "1-2-3", "0-99999999999"])
def test_no_cpu_lists(text: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        parse_cpus(text)


def test_the_write_budget_is_the_jar_s_and_shared_evenly(tmp_path: Path) -> None:
    loaded = given_text(tmp_path, THREE + '[snapshots]\nwrite_budget = "3GiB"\n').snapshots
    assert loaded == config.Snapshots(disk=True, write_budget=3 << 30)
    assert loaded.share(3) == 1 << 30
    assert config.Snapshots(write_budget=1 << 20).share(1 << 21) == 1, "a share is never none"
    assert given_text(tmp_path, THREE + "[snapshots]\ndisk = false\n").snapshots.share(3) == 0


def test_every_key_of_the_watchdog_is_read(tmp_path: Path) -> None:
    text = """
[watchdog]
interval = "2s"
gpu_memory = 70
gpu_memory_kill = 71
host_memory = 80
pressure = 30
disk = 90
temperature = 75
temperature_resume = 60
sensors = ["cpu*", "GPU*"]
cooldown = "20s"
stall = "1m"
leak_window = "1h"
leak_horizon = "5m"
"""
    assert given_text(tmp_path, MINIMAL + text).watchdog == config.Watchdog(
        interval=2.0,
        gpu_memory=70,
        gpu_memory_kill=71,
        host_memory=80,
        host_memory_kill=90,
        pressure=30,
        disk=90,
        temperature=75,
        temperature_resume=60,
        sensors=("cpu*", "GPU*"),
        cooldown=20.0,
        stall=60.0,
        leak_window=3600.0,
        leak_horizon=300.0,
    )
    assert given_text(tmp_path, MINIMAL).watchdog == config.Watchdog(), "the defaults of both are the same"
    assert given_text(tmp_path, MINIMAL + "[watchdog]\ntemperature = 70").watchdog.temperature_resume == 65


def test_the_dashboard_is_off_looks_only_and_listens_on_loopback_unless_it_is_said(tmp_path: Path) -> None:
    plain = given_text(tmp_path, MINIMAL).web
    assert plain == config.Web() and not plain.enabled and not plain.control and not plain.beyond_loopback
    assert plain.where == "http://127.0.0.1:8095/"
    web = given_text(tmp_path, MINIMAL + '[web]\nenabled = true\nhost = "::"\nport = 80\nnames = ["a.example"]\ncontrol = true').web
    assert (web.enabled, web.control, web.beyond_loopback, web.where) == (True, True, True, "http://[::]:80/")
    socket = given_text(tmp_path, MINIMAL + '[web]\nsocket = "run/web.sock"\nproxies = ["unix"]').web
    assert socket.where == f"unix:{tmp_path / 'run/web.sock'}" and not socket.beyond_loopback and socket.proxies == ("unix",)
    for host in ("localhost", "127.9.9.9", "::1"):
        assert not config.Web(host=host).beyond_loopback


@pytest.mark.parametrize(
    "line",
    ['host = "0.0.0.0"', 'host = "jar.example"', "port = 0", "port = 65536", 'enabled = "yes"', f'socket = "{"x" * 101}"', "names = [1]"],
)
def test_a_dashboard_that_cannot_be_is_said_with_its_key(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=rf"web\.{line.split(' ')[0]}"):
        given_text(tmp_path, MINIMAL + "[web]\n" + line)


@pytest.mark.parametrize(
    "line",
    [
        "temperature = 70\ntemperature_resume = 70",
        "temperature_resume = 86",
        "host_memory = 0",
        "host_memory = 101",
        'cooldown = "0s"',
        "sensors = [1]",
        'stall = "10ms"',
        "pressure = -1",
        "host_memory_kill = 89",
        "gpu_memory = 90\ngpu_memory_kill = 89",
        'leak_window = "0s"',
    ],
)
def test_a_wrong_mark_is_said_with_its_key(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=rf"watchdog\.{line.splitlines()[-1].split(' ')[0]}"):
        given_text(tmp_path, MINIMAL + "[watchdog]\n" + line)


def test_who_sees_all_goes_last_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    assert [p.expendable for p in given_text(tmp_path, THREE).personas] == [10, 10, 0]
    found = given_text(tmp_path, THREE, "persona.god.expendable=30", "persona.subject.priority=4")
    assert [(p.expendable, p.priority) for p in found.personas] == [(10, 4), (10, 0), (30, 0)]


# ── who sees whom ─────────────────────────────────────────────────────────────────────────────────────────────────────

SEEING = THREE.replace('"observer"\n', '"observer"\nsees = ["subject"]\n').replace('"god"\n', '"god"\nsees = ["*"]\n')


def test_who_is_told_learns_of_all_that_see_it_and_of_nobody_else(tmp_path: Path) -> None:
    loaded = given_text(tmp_path, SEEING, *[f"persona.{name}.told=true" for name in ("subject", "observer")])
    subject, observer, god = loaded.personas
    assert "You are observed: all that you think reaches observer and god," in subject.prompt
    assert "reaches god," in observer.prompt
    assert "observed" not in god.prompt


def test_who_is_told_and_nobody_sees_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"persona\.god\.told: found true, and nobody sees god"):
        given_text(tmp_path, SEEING, "persona.god.told=true")


def test_vitals_are_for_the_role_god_unless_it_is_said(tmp_path: Path) -> None:
    assert [p.vitals for p in given_text(tmp_path, THREE).personas] == [0.0, 0.0, 60.0]
    loaded = given_text(tmp_path, THREE, "persona.god.vitals=0s", "persona.observer.vitals=5m")
    assert [p.vitals for p in loaded.personas] == [0.0, 300.0, 0.0]


SAID = """
[jar]
state_dir = "s"
runtime_dir = "/r"
[web]
socket = "w"
[model]
path = "~/m.gguf"
[[persona]]
name = "a"
prompt = "p.md"
model.path = "n.gguf"
"""


def test_every_path_that_a_config_can_say_is_known_as_one(tmp_path: Path) -> None:
    (tmp_path / "matrix.toml").write_text(SAID)
    found = {one.key: one for one in config.said_paths(tmp_path / "matrix.toml")}
    of_schema = [
        (name, field)
        for name, struct in vars(schema).items()
        if name.startswith("Raw")
        for field, kind in typing.get_type_hints(struct, include_extras=True).items()
        if {schema.File, schema.Dir} & set(typing.get_args(kind))
    ]
    assert of_schema == [("RawModel", "path"), ("RawPersona", "prompt"), ("RawJar", "state_dir"), ("RawJar", "runtime_dir")]
    assert set(found) == {"jar.state_dir", "jar.runtime_dir", "web.socket", "model.path", "persona.a.prompt", "persona.a.model.path"}
    assert found["persona.a.prompt"].path == tmp_path / "p.md" and found["model.path"].path == Path.home() / "m.gguf"
    assert [key for key, one in found.items() if not one.is_relative] == ["jar.runtime_dir", "model.path"]
