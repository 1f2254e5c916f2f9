"""Where things are: what is shipped, the model files, and what a jar writes.

Nothing here makes or checks a directory: whoever writes there does, and says so when it cannot.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent
KEPT_ASIDE: Final = "kept-aside"
"""A file of this name lies beside a package that a supervisor keeps to go back to (`supervisor.aside`)."""
_SHIPPED: Final = PACKAGE / "_shipped"
"""Links into the checkout, or in an installed package what they led to (setup.cfg)."""


def checkout() -> Path | None:
    """Top of the checkout that this code runs from; None where it is installed."""
    root = PACKAGE.parent
    return root if (root / "setup.cfg").is_file() and (root / "models" / "catalog.toml").is_file() else None


def kept_aside() -> Path | None:
    """Top of what a supervisor has kept aside, where this code runs from there."""
    return PACKAGE.parent if (PACKAGE.parent / KEPT_ASIDE).exists() else None


def import_environment() -> dict[str, str]:
    """What a process that we start with our own Python needs in its environment to find this very code.

    From a checkout that is its top. Where brainjar is installed nothing is: site-packages in PYTHONPATH would come before
    the standard library.
    """
    root = checkout() or kept_aside()
    return {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": str(root)} if root else {})


def config_dir() -> Path:
    """The shipped configs."""
    return _resolved(_SHIPPED / "configs")


def systemd_dir() -> Path:
    """The shipped units."""
    return _resolved(_SHIPPED / "systemd")


def prompt_file(role: str) -> Path:
    """The shipped prompt of `role`; it exists only for the roles that brainjar knows."""
    return PACKAGE / "prompts" / f"{role}.md"


def catalog_file() -> Path:
    return _resolved(_SHIPPED / "models") / "catalog.toml"


def models_dir() -> Path:
    """Where GGUF files land: $BRAINJAR_MODELS, else `models/` of the checkout, else $XDG_DATA_HOME/brainjar/models."""
    if chosen := os.environ.get("BRAINJAR_MODELS"):
        return Path(chosen).expanduser().absolute()
    if root := checkout():
        return root / "models"
    return _xdg("XDG_DATA_HOME", ".local/share") / "brainjar" / "models"


def default_state_dir(jar: str) -> Path:
    """$STATE_DIRECTORY (systemd; the first of a colon list), else $XDG_STATE_HOME/brainjar/<jar>."""
    return _from_systemd("STATE_DIRECTORY") or _xdg("XDG_STATE_HOME", ".local/state") / "brainjar" / jar


def default_runtime_dir(jar: str) -> Path:
    """$RUNTIME_DIRECTORY (systemd), else $XDG_RUNTIME_DIR/brainjar/<jar>, else /tmp/brainjar-<uid>/<jar>.

    Anybody may have made the last one first: its owner and mode are for its maker to verify.
    """
    if given := _from_systemd("RUNTIME_DIRECTORY"):
        return given
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(runtime) / "brainjar" if runtime.startswith("/") else Path(f"/tmp/brainjar-{os.getuid()}")
    return base / jar


def _resolved(path: Path) -> Path:
    """`path` without the link, so that messages name the file as people know it."""
    return path.resolve()


def _from_systemd(variable: str) -> Path | None:
    first = os.environ.get(variable, "").split(":")[0]
    return Path(first) if first.startswith("/") else None


def _xdg(variable: str, default: str) -> Path:
    """The specification says that a relative path there is to be ignored."""
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / default
