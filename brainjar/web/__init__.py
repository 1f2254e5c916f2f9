"""The dashboard: a client of the bus and the control socket, like the view, that serves what it hears over HTTP."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

NEEDS: Final = {"starlette": "starlette", "uvicorn": "uvicorn", "websockets": "websockets", "prometheus_client": "prometheus-client"} | {
    "argon2": "argon2-cffi"
}
"""Modules of the extra `web`, and who brings them."""


def missing() -> str | None:
    """What to say where it cannot be had; None where it can."""
    lacking = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if not lacking:
        return None
    return f"the dashboard needs {', '.join(lacking)}; run: {sys.executable} -m pip install 'brainjar[web]'"
