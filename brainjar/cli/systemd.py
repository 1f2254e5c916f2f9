"""brainjar systemd render    [--config FILE] [--user] [--instance]
brainjar systemd install   [--config FILE] [--user] [--instance] [--drop-in NAME]... [--now] [--dry-run] [--yes]
brainjar systemd uninstall [--user] [--dry-run] [--yes]

The unit of a jar. render prints it for this host and a config: this brainjar's own path, memory bounds from the plan, the drop-in of a
board or a GPU that is here, and what this host cannot give. install shows what it would write, asks, and writes it, with the config where
none is there yet; --now also enables and starts it. A file that somebody has changed is shown beside what would replace it. uninstall
stops the unit and removes what install has written, but no config and no mind.
--user: in your own systemd instead of the system's. --instance: brainjar@.service, of which brainjar@NAME runs /etc/brainjar/NAME.toml.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers
    from brainjar.unitfile import Wanted

ACTIONS: Final = ("render", "install", "uninstall")
HERE: Final = Path("/")
NONE: Final = "none"


def add_parser(subparsers: Subparsers) -> None:
    p = subparsers.add_parser(
        "systemd", help="the unit of a jar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("action", choices=ACTIONS)
    p.add_argument("--config", type=Path, metavar="FILE", help="default: the one in place, else the shipped matrix")
    p.add_argument("--user", action="store_true", help="your own systemd")
    p.add_argument("--instance", action="store_true", help="a template for several jars")
    names = "gpu, jetson, raspberry-pi, static-user or none; default: what suits this host"
    p.add_argument("--drop-in", action="append", default=[], metavar="NAME", dest="drop_ins", help=names)
    p.add_argument("--now", action="store_true", help="enable and start it")
    p.add_argument("--dry-run", action="store_true", help="show, and write nothing")
    p.add_argument("--yes", action="store_true", help="do not ask")
    p.add_argument("--root", type=Path, default=HERE, metavar="DIR", help="write below DIR, for packagers; nothing is started then")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.action == "render":
        print(_unit(args), end="")
        for path, text in _drop_ins(args).items():
            print(f"\n# {path}\n{text}", end="")
        return 0
    return _install(args) if args.action == "install" else _uninstall(args)


# ── render ──


def _unit(args: argparse.Namespace) -> str:
    from brainjar import unitfile
    from brainjar.errors import UsageError
    from brainjar.paths import systemd_dir

    shipped = (systemd_dir() / ("brainjar-user.service" if args.user else "brainjar.service")).read_text()
    try:
        return unitfile.render(shipped, _wanted(args))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _wanted(args: argparse.Namespace) -> Wanted:
    from brainjar import unitfile
    from brainjar.errors import UsageError

    if args.user and args.instance:
        raise UsageError("--instance is for the system's systemd: a user has one jar, or units of their own")
    needed, host = (None, 0) if args.instance else _needed(args)
    place = unitfile.USER_CONFIG if args.user else unitfile.CONFIG
    notes = _notes() if args.root == HERE else ()
    return unitfile.Wanted(program=_program(), config=place, needed_bytes=needed, host_bytes=host, instance=args.instance, notes=notes)


def _notes() -> tuple[str, ...]:
    """What `brainjar doctor` finds lacking here, as far as it is the same for whoever asks."""
    from brainjar.isolation import host
    from brainjar.watchdog import findings as senses

    found = [one for one in (*host.of_a_unit(), senses.pressure()) if one.state != "yes"]
    return tuple(f"{one.name} ({one.group}): {one.consequence}{f' ({one.how})' if one.how else ''}" for one in found)


def _program() -> str:
    """This very brainjar, as a command: of its venv or pipx, not of a checkout that happens to be the working directory."""
    beside = Path(sys.executable).parent / "brainjar"
    found = str(beside) if beside.exists() else shutil.which("brainjar")
    from brainjar.errors import UsageError

    if found is None:
        raise UsageError(f"no command brainjar beside {sys.executable} and none in PATH: install brainjar, then install its unit")
    return str(Path(found).absolute())


def _needed(args: argparse.Namespace) -> tuple[int | None, int]:
    """(bytes that the config needs, bytes that this machine has). None where a model is not here yet: then it is not known."""
    from brainjar import config as configs
    from brainjar.cli import planning
    from brainjar.errors import BrainjarError, UsageError

    path = _config(args)
    config = configs.load(path)
    try:
        planning.check_fetched(config)
        plan = planning.make(config, planning.headers(config))
    except UsageError:
        raise
    except BrainjarError as error:
        print(f"brainjar: the memory bounds stay shares of the machine: {error}", file=sys.stderr)
        return None, 0
    return plan.totals.total_bytes, plan.totals.bound_bytes


def _config(args: argparse.Namespace) -> Path:
    """What the unit's bounds are for: the one given, the one in place, else the shipped one."""
    from brainjar.paths import config_dir

    if args.config is not None:
        return Path(args.config)
    place = _config_place(args)
    return place if place.exists() else config_dir() / "matrix.toml"


# ── where things go ──


def _config_place(args: argparse.Namespace) -> Path:
    if args.user:
        return Path.home() / ".config/brainjar/brainjar.toml"
    return Path(args.root) / "etc/brainjar/brainjar.toml"


def _copies(args: argparse.Namespace) -> bool:
    """Whether the config is to be put in its place."""
    if args.instance:
        return False
    place = _config_place(args)
    return not place.exists() or (args.config is not None and _config(args).resolve() != place.resolve())


def _unit_place(args: argparse.Namespace) -> Path:
    if args.user:
        return Path.home() / ".config/systemd/user/brainjar.service"
    name = "brainjar@.service" if args.instance else "brainjar.service"
    return Path(args.root) / "etc/systemd/system" / name


def _files(args: argparse.Namespace) -> dict[Path, str]:
    """All that an install writes, but what is there as it is to be."""
    from brainjar import unitfile
    from brainjar.cli import settling

    configured = {}
    if _copies(args):
        configured = settling.companions(_config(args), _config_place(args))
        configured[_config_place(args)] = _config(args).read_text()
    written = {_unit_place(args): _unit(args)} | _drop_ins(args)
    wanted = {path: f"{unitfile.MARK}\n{text}" for path, text in written.items()} | configured
    return {path: text for path, text in wanted.items() if _read(path) != text}


def _drop_ins(args: argparse.Namespace) -> dict[Path, str]:
    """Those that were asked for, else those that suit this host."""
    from brainjar import unitfile
    from brainjar.errors import UsageError
    from brainjar.isolation import hostmemory
    from brainjar.paths import systemd_dir

    known = {path.stem: path for path in sorted((systemd_dir() / "drop-ins").glob("*.conf"))}
    here = args.root == HERE
    if args.user and args.drop_ins:
        raise UsageError("--drop-in is for the system's systemd")
    names = args.drop_ins or ([] if args.user or not here else _suited(args))
    for name in names:
        if name not in (*known, NONE):
            raise UsageError(f"--drop-in {name}: there are {', '.join(known)}, and {NONE}")
    unit = _unit_place(args)
    memory = hostmemory.read().total_bytes if here else 0
    return {
        unit.with_name(f"{unit.name}.d") / known[name].name: unitfile.drop_in(known[name].read_text(), memory)
        for name in names
        if name != NONE
    }


def _suited(args: argparse.Namespace) -> tuple[str, ...]:
    from brainjar import config as configs
    from brainjar import unitfile
    from brainjar.isolation import board

    config = args.config if args.instance else _config(args)  # of a template's jars nothing is known but what was given
    on_gpu = board.has_nvidia_card() and config is not None and any(one.placement.gpu_layers for one in configs.load(config).models)
    return unitfile.suited(board.board(), on_gpu=on_gpu)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


# ── install, uninstall ──


def _install(args: argparse.Namespace) -> int:
    from brainjar import unitfile
    from brainjar.cli import settling
    from brainjar.errors import UsageError

    if not args.user and (closed := unitfile.unreachable(Path(_program()))) is not None:
        raise UsageError(
            f"{closed} is closed to other users, so that the unit's own could not run {_program()}: install brainjar where all may"
            " read it (python3 -m venv /opt/brainjar), or use --user"
        )
    files = _files(args)
    for path, text in files.items():
        _show(path, text)
    if not (args.user or args.instance) and args.root == HERE:
        for line in settling.obstacles(_config(args), copied=_copies(args)):
            print(f"brainjar: {line}", file=sys.stderr)
    steps = _steps(args, ("enable", "--now") if args.now else ())
    for step in steps:
        print(f"run: {' '.join(step)}")
    if not files and not args.now:
        print(f"{_unit_place(args)} is as it is to be; nothing is written")
        return 0
    if args.dry_run or not _agreed(args, f"write {len(files)} file{'' if len(files) == 1 else 's'}?"):
        print("nothing is written")
        return 0
    for path, text in files.items():
        _write(path, text)
    return _run(steps)


def _uninstall(args: argparse.Namespace) -> int:
    from brainjar import unitfile

    found = []
    for instance in (False, True):
        unit = _unit_place(argparse.Namespace(**(vars(args) | {"instance": instance})))
        found += [path for path in (unit, *sorted(unit.with_name(f"{unit.name}.d").glob("*.conf"))) if path.is_file()]
        if args.user:
            break
    ours = [path for path in found if (_read(path) or "").startswith(unitfile.MARK)]
    for path in found:
        print(f"remove: {path}" if path in ours else f"left as it is, somebody else wrote it: {path}")
    if not ours:
        print("nothing is installed")
        return 0
    names = [path.name for path in ours if path.suffix == ".service"]
    before = [[*_systemctl(args), "disable", "--now", name] for name in names if "@" not in name] if args.root == HERE else []
    for step in before:
        print(f"run: {' '.join(step)}")
    if args.dry_run or not _agreed(args, f"remove {len(ours)} file{'' if len(ours) == 1 else 's'}?"):
        print("nothing is removed")
        return 0
    _run(before)
    for path in ours:
        path.unlink(missing_ok=True)
        if path.parent.name.endswith(".d") and not any(path.parent.iterdir()):
            path.parent.rmdir()
    print("what the jar has thought, its config and its models are left where they are")
    return _run(_steps(args, ()))


def _show(path: Path, text: str) -> None:
    before = _read(path)
    if before is None:
        print(f"write: {path}\n" + "".join(f"    {line}\n" for line in text.splitlines()))
        return
    print(f"replace: {path}")
    for line in difflib.unified_diff(before.splitlines(), text.splitlines(), "as it is", "as it would be", lineterm=""):
        print(f"    {line}")


def _agreed(args: argparse.Namespace, question: str) -> bool:
    from brainjar.errors import UsageError

    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: --yes says so, --dry-run only shows")
    return input(f"{question} [y/N] ").strip().casefold() in ("y", "yes")


def _write(path: Path, text: str) -> None:
    """Whole or not at all; anybody may read it."""
    from brainjar.errors import BrainjarError

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(aside, "w") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BrainjarError(
            f"{path} cannot be written: {error.strerror}{'' if os.geteuid() == 0 else '; as root, or with --user'}"
        ) from None
    print(f"written: {path}")


def _systemctl(args: argparse.Namespace) -> list[str]:
    return ["systemctl", "--user"] if args.user else ["systemctl"]


def _steps(args: argparse.Namespace, last: tuple[str, ...]) -> list[list[str]]:
    if args.root != HERE:
        return []
    steps = [[*_systemctl(args), "daemon-reload"]]
    return [*steps, [*_systemctl(args), *last, _unit_place(args).name]] if last and not args.instance else steps


def _run(steps: list[list[str]]) -> int:
    from brainjar.errors import BrainjarError

    for step in steps:
        try:
            done = subprocess.run(step, check=False)
        except FileNotFoundError:
            raise BrainjarError(f"{step[0]}: not here; this machine has no systemd") from None
        if done.returncode:
            raise BrainjarError(f"{' '.join(step)}: exit status {done.returncode}")
    return 0
