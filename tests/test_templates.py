"""Values in the texts of a persona: facts only, each where it can be known."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainjar import config, paths, templates
from brainjar.errors import UsageError
from brainjar.messages import News, Texts
from brainjar.persona import told

CONFIG = '[model]\npath = "tiny.gguf"\ncontext = 1024\n[[persona]]\nname = "ada"\nmemory = "300MiB"\nsees = ["bob"]\nprompt = "ada.md"\n'


def load(tmp_path: Path, prompt: str) -> config.Persona:
    (tmp_path / "ada.md").write_text(prompt)
    path = tmp_path / "jar.toml"
    path.write_text(CONFIG + '[[persona]]\nname = "bob"\nrole = "peer"\n')
    return config.load(path, allowed_cpus=frozenset({0})).personas[0]


def test_what_the_config_says_is_put_in_and_the_rest_waits_for_its_time(tmp_path: Path) -> None:
    ada = load(
        tmp_path,
        '---\nrole = "poet"\nfirst = "Hello, {{ name }}."\ndeath = "{{name}} fell {{times}} of {{memory}}: {{cause}}"\n'
        'nudge = "{{deaths}} deaths, {{used}} used, {{uptime}} old"\nother_death = "{{who}} is gone: {{cause}}"\n---\n'
        "You are {{name}} the {{role}}, on {{model}} with {{context}} tokens. You watch {{sees}}.",
    )
    assert ada.role == "poet"
    assert ada.prompt == "You are ada the poet, on tiny.gguf with 1024 tokens. You watch bob."
    assert ada.first == "Hello, ada."
    assert told.of_own_death(ada.texts, 2, "segv") == "ada fell 2 times of 300 MiB: a segmentation fault"
    assert told.of_own_death(ada.texts, 1, "killed-by-operator", "boredom") == "ada fell once of 300 MiB: boredom"
    going_on = told.to_go_on(ada.texts, life=3, deaths=2, cause="segv", used=5 << 20, age_s=7300.0, mood="calm")
    assert going_on == "2 deaths, 5 MiB used, 2 hours old"
    news = News(about="bob", event="death", life=4, deaths=4, cause="abort")
    assert told.of_another(ada.texts, news) == "bob is gone: an abort"


@pytest.mark.parametrize(
    ("prompt", "where", "value"),
    [
        ("You have died {{deaths}} times.", "prompt", "deaths"),
        ('---\nfirst = "{{mood}}"\n---\nYou.', "first", "mood"),
        ('---\ndeath = "{{used}}"\n---\nYou.', "death", "used"),
        ('---\nother_life = "{{cause}}"\n---\nYou.', "other_life", "cause"),
        ("{{}}", "prompt", ""),
        ("{{na\nme}}", "prompt", "na\\nme"),
    ],
)
def test_a_value_that_cannot_be_known_there_is_refused_with_file_and_name(tmp_path: Path, prompt: str, where: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, prompt)
    assert str(caught.value).startswith(f'{tmp_path / "ada.md"}: {where}: found the value "{value}"; ')
    assert "name" in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_persona_says_is_never_a_template() -> None:
    news = News(about="{{cause}}", event="death", life=1, deaths=1, cause="{{who}}")
    assert told.of_another(Texts(), news) == "{{cause}} died (death 1): {{who}}."


@pytest.mark.parametrize("role", sorted(path.stem for path in paths.prompt_file("god").parent.glob("*.md")))
def test_the_shipped_prompts_use_what_there_is(role: str) -> None:
    front, body = config.read_prompt(paths.prompt_file(role))
    assert templates.unknown(body, templates.TEXTS["prompt"]) is None
    assert templates.unknown(front.first, templates.TEXTS["first"]) is None
