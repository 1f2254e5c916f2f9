from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from brainjar import models
from brainjar.isolation import cgroups
from tests.system.harness import Jar, Limited

MAX_TOKENS = 24
SMALL = f"""
[jar]
name = "test"
[model]
name = "smollm2-135m"
context = 512
[inference]
max_concurrent = 1
[restart]
pause = "50ms"
intensity = 1000
[sampling]
max_tokens = {MAX_TOKENS}
seed = 7
"""
ALONE = SMALL + '[[persona]]\nname = "subject"\nmemory = "128MiB"\n'
THREE = ALONE + (
    '[[persona]]\nname = "observer"\nmemory = "144MiB"\nsees = ["subject"]\n[[persona]]\nname = "god"\nmemory = "160MiB"\nsees = ["*"]\n'
)

MakeJar = Callable[..., Jar]
FOUND = cgroups.survey()
needs_groups = pytest.mark.skipif(FOUND.parent is None or "memory" not in FOUND.controllers, reason=f"no memory cgroup here: {FOUND.why}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = not models.is_present(models.lookup("smollm2-135m"))
    for item in items:
        if "tests/system" in str(item.path) or "tests/chaos" in str(item.path):
            item.add_marker(pytest.mark.system)
            if missing:
                item.add_marker(pytest.mark.skip(reason="the model smollm2-135m is not here: brainjar models fetch smollm2-135m"))


@pytest.fixture
def make_jar(tmp_path: Path) -> Iterator[MakeJar]:
    """Make a jar from the text of a config; all of them are ended with the test."""
    made: list[Jar] = []

    def make(text: str = THREE, *args: str, name: str = "jar", view: str = "plain", **more: Any) -> Jar:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        config = root / "matrix.toml"
        config.write_text(text)
        made.append(Jar(root, config, *args, view=view, **more))
        return made[-1]

    yield make
    with ExitStack() as stack:  # all of them, whatever one of them leaves
        for jar in made:
            stack.callback(jar.clean_up)


@pytest.fixture
def limited() -> Iterator[Limited]:
    """Ask for it before `make_jar`: it goes when the jar is gone."""
    assert FOUND.parent is not None
    given = os.environ.get("BRAINJAR_TEST_CGROUP")
    made = Limited((Path(given) if given else FOUND.parent) / f"brainjar-test-{os.getpid()}")
    yield made
    made.remove()
