"""A stand-in for the NVIDIA driver, for hosts without one: pynvml loads it as it loads the real library. What it says: nvml.c."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

WHY_NOT = "no C compiler for the stand-in of the NVIDIA driver"


def build(directory: Path) -> Path | None:
    """`directory`/libnvidia-ml.so.1, for LD_LIBRARY_PATH; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = directory / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source)], check=True)
    return library


def environment(library: Path, answers: Path) -> dict[str, str]:
    """What a process needs to find `library` for the driver, which reads `answers` at every call."""
    return {"LD_LIBRARY_PATH": str(library.parent), "NVML_STAND_IN": str(answers)}
