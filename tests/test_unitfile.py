"""The unit: this host's paths, and memory that the config needs; and the command that writes it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar import paths, unitfile
from brainjar.cli import main, systemd
from brainjar.isolation import board, host
from brainjar.isolation.findings import Finding
from brainjar.unitfile import MARK, MIB, Wanted, bounds, render
from brainjar.watchdog import findings

SHIPPED = (paths.systemd_dir() / "brainjar.service").read_text()
GIB = 1 << 30


def value(text: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return str(found)


def test_it_runs_the_program_and_the_config_that_are_meant_and_nothing_else_changes() -> None:
    text = render(SHIPPED, Wanted(program="/srv/bj/bin/brainjar", config="/srv/jar.toml"))
    assert value(text, "ExecStart") == "/srv/bj/bin/brainjar supervise --config /srv/jar.toml"
    assert value(text, "ExecReload").startswith("/srv/bj/bin/brainjar reload ")
    back = text.replace("/srv/bj/bin/brainjar", unitfile.PROGRAM).replace("/srv/jar.toml", unitfile.CONFIG)
    assert back == SHIPPED.replace(" As it is shipped it is for a brainjar in /opt/brainjar.", "") != SHIPPED
    assert value(render(SHIPPED, Wanted(program="/a%b/brainjar", config="/c%d")), "ExecStart") == "/a%%b/brainjar supervise --config /c%%d"


@pytest.mark.parametrize("path", ["relative", "/with space", '/quo"te', "/a;b", "/$HOME/x", "/new\nline"])
def test_a_path_that_a_unit_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        render(SHIPPED, Wanted(program=path, config="/x"))
    with pytest.raises(ValueError, match="absolute path"):
        render(SHIPPED, Wanted(program="/x", config=path))


@given(st.integers(1, 64 * GIB), st.integers(0, 64 * GIB))
def test_the_whole_is_bounded_above_what_the_config_needs(needed: int, host: int) -> None:
    high, top = bounds(needed, host)
    assert needed <= high <= top and high % MIB == top % MIB == 0
    if host > 2 * needed + GIB:
        assert top <= host and high >= needed * 1.09
    if host * 0.95 > needed + MIB:
        assert top <= host * 0.95 + MIB, "the machine keeps something for itself"
    text = render(SHIPPED, Wanted(program="/x", config="/y", needed_bytes=needed, host_bytes=host))
    assert value(text, "MemoryMax") == f"{top // MIB}M" and value(text, "MemoryHigh") == f"{high // MIB}M"


def test_the_shipped_template_is_the_shipped_unit_for_several_jars() -> None:
    """BRAINJAR_GOLDEN=write writes it."""
    text = render(SHIPPED, Wanted(program=unitfile.PROGRAM, config=unitfile.CONFIG, instance=True))
    path = paths.systemd_dir() / "brainjar@.service"
    if os.environ.get("BRAINJAR_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text
    own = [line for line in text.splitlines() if not line.startswith("#") and "brainjar" in line and "/bin/brainjar reload" not in line]
    assert all("%i" in line or line == "ConfigurationDirectory=brainjar" for line in own), own


@pytest.mark.parametrize("path", sorted(paths.systemd_dir().rglob("*.service")), ids=lambda path: path.name)
def test_no_line_is_said_without_a_reason_where_it_gives_way(path: Path) -> None:
    text = path.read_text()
    assert value(text, "Type") == "notify" and value(text, "KillMode" if "user" not in path.name else "Type")
    assert value(text, "RestartPreventExitStatus") == "2" and value(text, "OOMPolicy") == "continue" and value(text, "MemorySwapMax") == "0"
    assert int(value(text, "StartLimitBurst")) * float(value(text, "RestartSec")) < int(value(text, "StartLimitIntervalSec"))


# ── the command ──


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main.main(["systemd", *argv])
    out, error = capsys.readouterr()
    return code, out, error


@pytest.fixture(autouse=True)
def open_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unitfile, "unreachable", lambda path: None)


def test_it_is_shown_and_written_below_a_root_and_taken_away_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, unit = tmp_path / "root", tmp_path / "root/etc/systemd/system/brainjar.service"
    code, out, _ = run(capsys, "install", "--root", str(root), "--dry-run")
    assert code == 0 and f"write: {unit}" in out and "nothing is written" in out and not root.exists()
    code, out, _ = run(capsys, "install", "--root", str(root), "--yes", "--drop-in", "raspberry-pi")
    assert code == 0 and unit.read_text().startswith(MARK) and "systemctl" not in out
    assert (unit.parent / "brainjar.service.d/raspberry-pi.conf").exists() and unit.stat().st_mode & 0o777 == 0o644
    config = root / "etc/brainjar/brainjar.toml"
    assert config.read_text() == (paths.config_dir() / "matrix.toml").read_text()
    code, out, _ = run(capsys, "install", "--root", str(root), "--yes", "--drop-in", "raspberry-pi")
    assert code == 0 and "is as it is to be" in out
    # what somebody has changed is shown beside what would replace it
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSec=99"))
    config.write_text(config.read_text() + "# mine\n")
    code, out, _ = run(capsys, "install", "--root", str(root), "--dry-run")
    assert f"replace: {unit}" in out and "-WatchdogSec=99" in out and "+WatchdogSec=30" in out and str(config) not in out
    code, out, error = run(capsys, "install", "--root", str(root))
    assert code == 2 and "--yes says so" in error and "WatchdogSec=99" in unit.read_text(), "nobody can be asked here"
    # and goes again, but for what is not ours
    (unit.parent / "brainjar.service.d/mine.conf").write_text("[Service]\n")
    code, out, _ = run(capsys, "uninstall", "--root", str(root), "--dry-run")
    assert f"remove: {unit}" in out and unit.exists()
    code, out, _ = run(capsys, "uninstall", "--root", str(root), "--yes")
    assert code == 0 and not unit.exists() and "somebody else wrote it" in out
    assert (unit.parent / "brainjar.service.d/mine.conf").exists() and config.read_text().endswith("# mine\n")
    assert not list(unit.parent.glob(".*")), "nothing half written is left"
    assert "nothing is installed" in run(capsys, "uninstall", "--root", str(tmp_path / "empty"), "--yes")[1]


JAR = '[model]\n{}\n[[persona]]\nname = "subject"\nmemory = "1GiB"\nprompt = "{}"\n'


def test_what_a_config_says_relatively_comes_along_or_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, root = tmp_path / "mine/jar.toml", tmp_path / "root"
    (tmp_path / "mine/minds").mkdir(parents=True)
    prompt = tmp_path / "mine/minds/wise.md"
    prompt.write_text("You are wise.")
    config.write_text(JAR.format('name = "smollm2-135m"', "minds/wise.md"))
    install = ("install", "--root", str(root), "--config", str(config), "--yes")
    code, out, _ = run(capsys, *install)
    there = root / "etc/brainjar/minds/wise.md"
    assert code == 0 and f"written: {there}" in out and there.read_text() == "You are wise."
    assert (root / "etc/brainjar/brainjar.toml").read_text() == config.read_text()
    assert "is as it is to be" in run(capsys, *install)[1]
    prompt.write_text("You are wiser.")
    assert "+You are wiser." in run(capsys, *install)[1] and there.read_text() == "You are wiser."
    before = (root / "etc/brainjar/brainjar.toml").read_text()
    for model, said in (('path = "big.gguf"', "model.path"), ('name = "smollm2-135m"', "persona.subject.prompt")):
        config.write_text(JAR.format(model, "minds/wise.md" if said == "model.path" else "../wise.md"))
        (tmp_path / "wise.md").write_text("You are wise.")
        code, _, error = run(capsys, *install)
        assert code == 2 and f"{config}: {said}: " in error and "say the path from / on" in error and error.count("\n") == 1
    assert (root / "etc/brainjar/brainjar.toml").read_text() == before


def test_what_the_unit_could_not_read_or_write_is_said_before_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_program", lambda: unitfile.PROGRAM)
    monkeypatch.setattr(systemd, "_needed", lambda args: (None, 0))
    config = tmp_path / "jar.toml"
    dirs = '[jar]\nstate_dir = "/data/jar"\nruntime_dir = "/run/brainjar/x"\n[web]\nsocket = "/srv/web.sock"\n'
    (tmp_path / "wise.md").write_text("You are wise.")

    def said(text: str) -> list[str]:
        config.write_text(text)
        code, _, error = run(capsys, "install", "--config", str(config), "--dry-run", "--drop-in", "none")
        assert code == 0
        return [line.removeprefix(f"brainjar: {config}: ") for line in error.splitlines()]

    state, web, model = said(dirs + JAR.format('path = "/home/ada/big.gguf"', "wise.md"))
    assert state.startswith("jar.state_dir: /data/jar: the unit may write below /var/lib/brainjar, ") and "ReadWritePaths=" in state
    assert web.startswith("web.socket: /srv/web.sock: the unit may write below ")
    assert model == "model.path: /home/ada/big.gguf: the unit sees no home directories, and has a /tmp of its own"
    monkeypatch.setattr(unitfile, "unreachable", lambda path: path.parent if path.name == "big.gguf" else None)
    assert said(JAR.format('path = "/srv/closed/big.gguf"', "wise.md")) == [
        "model.path: /srv/closed/big.gguf: /srv/closed is not there, or closed to other users, and so to the unit's own"
    ]
    assert said(JAR.format('path = "/srv/open.gguf"', "wise.md")) == []
    config.write_text(dirs + JAR.format('path = "/home/ada/big.gguf"', str(tmp_path / "wise.md")))
    assert run(capsys, "install", "--user", "--config", str(config), "--dry-run")[2] == "", "a user's own unit sees what the user sees"


@pytest.mark.parametrize(
    ("model", "file", "found"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0\0", "", "raspberry-pi"),
        ("NVIDIA Jetson AGX Orin Developer Kit\0", "", "jetson"),
        ("some carrier of ours\0", "nv_tegra_release", "jetson"),
        ("Radxa ROCK 5B\0", "", None),
        (None, "", None),
    ],
)
def test_a_board_is_known_by_what_its_firmware_says(tmp_path: Path, model: str | None, file: str, found: str | None) -> None:
    (tmp_path / "device-tree").mkdir()
    if model is not None:
        (tmp_path / "device-tree/model").write_text(model)
    if file:
        (tmp_path / file).touch()
    assert board.board(tmp_path, tmp_path) == found
    assert not board.has_nvidia_card(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert board.has_nvidia_card(tmp_path)


def test_what_suits_a_host_is_said_without_being_asked_for() -> None:
    assert unitfile.suited("raspberry-pi", on_gpu=False) == ("raspberry-pi",)
    assert unitfile.suited("jetson", on_gpu=True) == ("jetson",), "its GPU's devices are in that"
    assert unitfile.suited(None, on_gpu=True) == ("gpu",) and unitfile.suited(None, on_gpu=False) == ()
    jetson = (paths.systemd_dir() / "drop-ins/jetson.conf").read_text()
    assert unitfile.drop_in(jetson, 30 * GIB) == unitfile.drop_in(jetson, 0) == jetson
    small = unitfile.drop_in(jetson, 15 * GIB)
    assert "Memory" not in small and "CPUQuota=600%" in small and "MemoryMax=24G" in jetson, "the unit's own bounds stay"


def test_the_unit_of_this_host_says_what_the_host_cannot_give(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(board, "board", lambda: "raspberry-pi")
    monkeypatch.setattr(
        host, "of_a_unit", lambda: (Finding("controllers", "cgroups", "no", "n/a", "MemoryMax= holds\nnothing", "do that"),)
    )
    monkeypatch.setattr(findings, "pressure", lambda: Finding("PSI", "senses", "yes", "memory full 0 %"))
    code, out, _ = run(capsys, "render")
    head, _, rest = out.partition("[Unit]\n")
    assert code == 0 and head.endswith("\n# On this host: controllers (cgroups): MemoryMax= holds nothing (do that)\n")
    assert "PSI" not in head and "TimeoutStartSec=600" in rest.partition("# /etc/systemd/system/brainjar.service.d/raspberry-pi.conf\n")[2]
    assert "raspberry-pi.conf" not in run(capsys, "render", "--drop-in", "none")[1]
    assert "raspberry-pi.conf" not in run(capsys, "render", "--user")[1], "a user's manager hardens and bounds little"
    for_others = run(capsys, "install", "--root", str(tmp_path), "--dry-run")[1]
    assert "raspberry-pi" not in for_others and "On this host" not in for_others, "what is packaged here runs elsewhere"


def test_a_cards_devices_are_opened_only_for_a_config_that_computes_on_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(board, "board", lambda: None)
    monkeypatch.setattr(board, "has_nvidia_card", lambda: True)
    text = '[model]\nname = "smollm2-135m"\n{}[[persona]]\nname = "subject"\nmemory = "1GiB"\n'
    (tmp_path / "cpu.toml").write_text(text.format(""))
    (tmp_path / "gpu.toml").write_text(text.format('gpu_layers = "all"\n'))
    opened = "brainjar@.service.d/gpu.conf\n"
    assert opened in run(capsys, "render", "--instance", "--config", str(tmp_path / "gpu.toml"))[1]
    assert opened not in run(capsys, "render", "--instance", "--config", str(tmp_path / "cpu.toml"))[1]
    monkeypatch.setattr(systemd, "_config_place", lambda args: tmp_path / "gpu.toml")
    monkeypatch.setattr(systemd, "_needed", lambda args: (None, 0))  # of a card that is not here
    assert "brainjar.service.d/gpu.conf\n" in run(capsys, "render")[1], "the one in place"
    assert opened not in run(capsys, "render", "--instance")[1], "whose jars are not known"
    assert opened in run(capsys, "render", "--instance", "--drop-in", "gpu")[1]
    monkeypatch.setattr(board, "has_nvidia_card", lambda: False)
    assert opened not in run(capsys, "render", "--instance", "--config", str(tmp_path / "gpu.toml"))[1]


def test_a_user_has_it_in_their_own_place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, _ = run(capsys, "render", "--user")
    assert code == 0 and "--config %h/.config/brainjar/brainjar.toml" in out and "DynamicUser" not in out.replace("no DynamicUser", "")
    code, out, _ = run(capsys, "install", "--user", "--dry-run")
    assert f"write: {tmp_path}/.config/systemd/user/brainjar.service" in out and "run: systemctl --user daemon-reload" in out
    assert run(capsys, "install", "--user", "--instance", "--dry-run")[0] == 2
    assert run(capsys, "install", "--user", "--drop-in", "gpu", "--dry-run")[0] == 2
    code, _, error = run(capsys, "install", "--drop-in", "gpus", "--dry-run")
    assert code == 2 and "gpu, jetson, raspberry-pi, static-user" in error


def test_what_others_may_not_enter_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    program = inner / "brainjar"
    program.touch(0o755)
    for one in (tmp_path, *(p for p in tmp_path.parents if p != Path("/") and p.stat().st_uid == os.getuid())):
        one.chmod(one.stat().st_mode | 0o001)
    assert unitfile.unreachable(program) is None
    (tmp_path / "a").chmod(0o700)
    assert unitfile.unreachable(program) == tmp_path / "a"
    (tmp_path / "a").chmod(0o755)
    program.chmod(0o700)
    assert unitfile.unreachable(program) == program
    assert unitfile.unreachable(inner / "gone") == inner / "gone"
