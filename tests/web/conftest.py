from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakejar import FakeJar


@pytest.fixture
def jar(tmp_path: Path) -> Iterator[FakeJar]:
    with FakeJar(tmp_path) as fake:
        yield fake
