"""Which board this is, where that makes a difference: what a unit of it needs, and where its GPU's load is read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from brainjar.isolation.findings import ETC, PROC, text

Board = Literal["jetson", "raspberry-pi"]


def board(proc: Path = PROC, etc: Path = ETC) -> Board | None:
    """By the device tree, which the firmware hands over; a Jetson also by the file that its Linux brings."""
    model = (text(proc / "device-tree/model") or "").rstrip("\0").casefold()
    if "jetson" in model or (etc / "nv_tegra_release").exists():
        return "jetson"
    return "raspberry-pi" if "raspberry pi" in model else None


def has_nvidia_card(dev: Path = Path("/dev")) -> bool:
    """Whether the driver of one has made its devices; a Jetson's are others."""
    return (dev / "nvidia0").exists()
