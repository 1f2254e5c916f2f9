"""CPUs that are one core stay together; shares are disjoint, whole and as even as they can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar import config
from brainjar.isolation import affinity


def topology(root: Path, siblings: dict[int, str]) -> Path:
    for cpu, text in siblings.items():
        place = root / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(text + "\n")
    return root


def test_siblings_are_one_core_as_far_as_they_may_be_used(tmp_path: Path) -> None:
    where = topology(tmp_path, {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"})
    assert affinity.cores(range(8), where) == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert affinity.cores({0, 4, 5}, where) == ((0, 4), (5,))


def test_what_the_kernel_tells_nothing_about_is_a_core_of_its_own(tmp_path: Path) -> None:
    where = topology(tmp_path, {0: "nonsense", 1: ""})
    assert affinity.cores({0, 1, 2}, where) == ((0,), (1,), (2,))


def test_a_share_is_made_of_whole_cores() -> None:
    cores = ((0, 4), (1, 5), (2, 6), (3, 7))
    assert affinity.shares(cores, 1) == ((0, 1, 2, 3, 4, 5, 6, 7),)
    assert affinity.shares(cores, 2) == ((0, 1, 4, 5), (2, 3, 6, 7))
    assert affinity.shares(cores, 3) == ((0, 1, 4, 5), (2, 6), (3, 7))
    assert affinity.shares(((0, 2), (1, 3)), 4) == ((0,), (2,), (1,), (3,)), "more shares than cores: their threads"


@pytest.mark.parametrize("count", [0, 5])
def test_more_shares_than_cpus_or_none_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="cannot be dealt out"):
        affinity.shares(((0, 1), (2, 3)), count)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 12))
def test_shares_are_disjoint_none_is_empty_and_all_cpus_are_dealt_out(sizes: list[int], count: int) -> None:
    numbers = iter(range(100))
    cores = [tuple(next(numbers) for _ in range(size)) for size in sizes]
    if count > sum(sizes):
        return
    dealt = affinity.shares(cores, count)
    assert len(dealt) == count
    assert all(dealt)
    assert sorted(cpu for share in dealt for cpu in share) == sorted(cpu for core in cores for cpu in core)
    if count <= len(cores):
        assert all(sum(cpu in share for cpu in core) in (0, len(core)) for core in cores for share in dealt)


def test_auto_counts_cores_not_their_threads(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text('[model]\npath = "m.gguf"\n[[persona]]\nname = "subject"\n[[persona]]\nname = "god"\n')
    cores = ((0, 4), (1, 5), (2, 6), (3, 7))
    (persona, _) = config.load(path, cores=cores).personas
    assert (persona.cpus, persona.threads) == (tuple(range(8)), 4)
    two = config.load(path, ["inference.max_concurrent=2"], cores=cores)
    assert [(p.cpus, p.threads) for p in two.personas] == [((0, 1, 4, 5), 2), ((2, 3, 6, 7), 2)]
    assert sum(p.threads for p in two.personas) <= len(cores)
    bound = config.load(path, ["persona.subject.cpus=0,4", "persona.subject.threads=2"], cores=cores).personas[0]
    assert bound.threads == 2, "who asks for siblings gets them"
