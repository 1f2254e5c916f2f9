"""A uid of its own for each persona: its own again the next time, nobody else's, and one that exists here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.isolation import users

ALL = [(0, 1 << 32)]


def test_a_mind_keeps_the_uid_that_it_has() -> None:
    first = users.choose(["subject", "god"], {}, ALL, "here")
    again = users.choose(["god", "subject", "new"], first, ALL, "elsewhere")
    assert {name: again[name] for name in first} == first


def test_two_minds_that_belong_to_the_same_get_two() -> None:
    found = users.choose(["a", "b"], {"a": users.FIRST, "b": users.FIRST}, ALL, "x")
    assert found["a"] == users.FIRST != found["b"]


def test_an_owner_outside_the_range_is_not_kept() -> None:
    assert users.choose(["a"], {"a": 0}, ALL, "x")["a"] >= users.FIRST


def test_only_uids_that_exist_here_are_given() -> None:
    assert set(users.choose(["a", "b"], {}, [(0, 1000), (users.LAST - 1, 2)], "x").values()) == {users.LAST - 1, users.LAST}
    with pytest.raises(LookupError, match="no uid"):
        users.choose(["a", "b", "c"], {}, [(users.LAST - 1, 2)], "x")
    with pytest.raises(LookupError):
        users.choose(["a"], {}, [], "x")


@given(st.sets(st.text(max_size=8), max_size=64), st.dictionaries(st.text(max_size=8), st.integers(0, 70000)), st.text(max_size=20))
def test_all_are_different_within_the_range_and_nobodys(names: set[str], owners: dict[str, int], salt: str) -> None:
    found = users.choose(sorted(names), owners, ALL, salt)
    assert found.keys() == names
    assert len(set(found.values())) == len(names)
    known = {entry.pw_uid for entry in pwd.getpwall()}
    assert all(users.FIRST <= uid <= users.LAST and uid not in known for uid in found.values())


def test_the_map_of_this_namespace_is_read_and_nonsense_is_none(tmp_path: Path) -> None:
    assert any(first <= os.geteuid() < first + count for first, count in users.mapped())
    odd = tmp_path / "uid_map"
    odd.write_text("x y\n")
    assert users.mapped(odd) == []
    assert users.mapped(tmp_path / "nowhere") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_is_given_with_all_that_lies_in_it_and_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    given_away = tmp_path / "mind"
    (given_away / "deep").mkdir(parents=True)
    (given_away / "deep" / "file").write_text("")
    (given_away / "link").symlink_to(outside)
    users.give(given_away, 61500, 61500)
    assert {path.lstat().st_uid for path in [given_away, *given_away.rglob("*")]} == {61500}
    assert outside.stat().st_uid == 0


def decided(monkeypatch: pytest.MonkeyPatch, wanted: dict[str, str], *, root: bool, mounts: bool) -> users.Decision:
    monkeypatch.setattr(users, "can_change", lambda: root)
    return users.decide(wanted, {}, mounts=mounts, salt="x")


@pytest.mark.parametrize(("root", "mounts"), [(True, True), (True, False), (False, True), (False, False)])
def test_everybody_gets_a_uid_or_a_reason_and_never_both(monkeypatch: pytest.MonkeyPatch, root: bool, mounts: bool) -> None:
    wanted = {"a": "auto", "b": "same", "c": "daemon", "d": "nobody-of-this-name"}
    found = decided(monkeypatch, wanted, root=root, mounts=mounts)
    for name in wanted:
        assert sum(name in kind for kind in (found.ids, found.same, found.impossible)) == 1, name
    able = root and mounts
    assert ("a" in found.ids) == able
    assert ("c" in found.ids) == able
    assert "b" in found.same
    assert "nobody-of-this-name" in found.impossible["d"]
    if not able:
        assert found.same["a"].startswith("the supervisor's own") and "daemon" in found.impossible["c"]


def test_a_name_that_is_the_supervisors_own_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    own = pwd.getpwuid(os.geteuid())
    assert decided(monkeypatch, {"a": own.pw_name}, root=False, mounts=False).ids == {"a": (own.pw_uid, own.pw_gid)}
