"""On what it was measured: machine, kernel, versions of everything that takes part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import subprocess
from pathlib import Path

import msgspec
import zmq

import brainjar

ROOT = Path(__file__).resolve().parent.parent


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    versions: dict[str, str]


def machine(peers: dict[str, str]) -> Machine:
    """`peers`: their names and versions."""
    own = {
        "brainjar": f"{brainjar.__version__} ({commit()})",
        "Python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "libzmq": zmq.zmq_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    for package in ("llama_cpp_python", "pyzmq", "msgspec", "psutil"):
        own[package.replace("_", "-")] = importlib.metadata.version(package)
    return Machine(
        cpu=cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") / 2**30, 1),
        kernel=platform.release(),
        versions=own | peers,
    )


def cpu_model() -> str:
    """x86 calls it so in /proc/cpuinfo; ARM boards have a name in the device tree."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    board = Path("/proc/device-tree/model")
    return board.read_text().strip("\0\n") if board.exists() else platform.machine()


def commit() -> str:
    """Of the checkout, with `+` where it has changes; "no checkout" elsewhere."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=9"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"
    return found.stdout.strip()


def load() -> float:
    return round(os.getloadavg()[0], 2)
