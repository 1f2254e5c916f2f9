"""How the installed llama.cpp was built: OpenMP, repacking, GPU backends, the devices that it finds.

`python -m brainjar.engine.build` asks the library and prints one JSON object; `ask` runs that, because a library that was
compiled for another CPU ends its process with SIGILL, and a GPU driver may hang it.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import signal
import subprocess
import sys
from typing import Final

import msgspec

from brainjar import paths
from brainjar.isolation.findings import NA, Finding
from brainjar.units import format_size

PATIENCE_S: Final = 60.0
"""A CUDA library of some hundred megabytes, read from an SD card, takes tens of seconds."""
_DEVICE_KINDS: Final = ("CPU", "GPU", "integrated GPU", "accelerator")
"""enum ggml_backend_dev_type, ggml-backend.h"""
_GROUP: Final = "llama.cpp"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    kind: str
    memory_bytes: int | None
    """None where the backend tells none: a Jetson's zero is no memory."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    version: str | None
    """Of llama-cpp-python; None where it was not installed as a package."""
    ggml: str | None
    library: str
    features: dict[str, dict[str, str]]
    """Backend -> feature -> value, from llama_print_system_info."""
    backends: tuple[str, ...]
    devices: tuple[Device, ...]


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The library cannot be asked."""

    why: str
    how: str


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    build: Build | None = None
    error: str = ""


_REBUILD: Final = (
    "make setup builds it for this CPU; elsewhere: pip install --force-reinstall --no-deps --no-binary llama-cpp-python llama-cpp-python"
)


def ask(patience_s: float = PATIENCE_S, python: str = sys.executable) -> Build | Broken:
    """Ask in a process of its own. Never raises."""
    argv = [python, "-m", "brainjar.engine.build"]
    env = os.environ | paths.import_environment()
    try:
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return Broken(why=f"it gave no answer within {patience_s:g} s", how="a GPU driver that hangs? CUDA_VISIBLE_DEVICES= leaves it out")
    except OSError as error:
        return Broken(
            why=f"{python} could not be started to ask it: {error.strerror}", how="run brainjar with a Python that you may execute"
        )
    if done.returncode < 0:
        words = signal.strsignal(-done.returncode) or f"signal {-done.returncode}"
        compiled = ": it was compiled for another CPU" if -done.returncode == signal.SIGILL else ""
        return Broken(why=f"loading it ends with {words} (signal {-done.returncode}){compiled}", how=_REBUILD)
    lines = done.stdout.splitlines() or [b""]  # a driver may write to stdout too, before us
    try:
        said = msgspec.json.decode(lines[-1], type=_Answer)
    except msgspec.DecodeError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Broken(why=f"it cannot be asked: {last}", how=_REBUILD)
    return Broken(why=said.error, how=_REBUILD) if said.build is None else said.build


def findings(build: Build | Broken) -> tuple[Finding, ...]:
    """The rows of `brainjar doctor`."""
    if isinstance(build, Broken):
        return (Finding("llama-cpp-python", _GROUP, "no", NA, f"no persona can think: {build.why}", build.how),)
    cpu = build.features.get("CPU", {})
    extensions = [name for name, value in cpu.items() if value == "1" and name not in ("OPENMP", "REPACK", "LLAMAFILE")]
    return (
        Finding("llama-cpp-python", _GROUP, "yes", f"{build.version or NA}, ggml {build.ggml or NA}, {build.library}"),
        Finding("CPU code", _GROUP, "yes", " ".join(extensions) or "plain"),
        _compiled("OpenMP", "OPENMP", cpu, "threads are made for every graph that is computed: fewer tokens a second", "-DGGML_OPENMP=on"),
        _compiled(
            "repack", "REPACK", cpu, "quantised weights are not laid out for this CPU: fewer tokens a second", "-DGGML_CPU_REPACK=on"
        ),
        _cuda(build),
        *(_device(device) for device in build.devices if device.kind != "CPU"),
    )


def _compiled(name: str, flag: str, features: dict[str, str], consequence: str, option: str) -> Finding:
    if features.get(flag) == "1":
        return Finding(name, _GROUP, "yes", "compiled in")
    return Finding(name, _GROUP, "no", "not compiled in", consequence, f"make setup CMAKE_ARGS={option}")


def _cuda(build: Build) -> Finding:
    if "CUDA" not in build.backends:
        consequence = "every layer is computed on the CPU"
        return Finding("CUDA", _GROUP, "no", "not compiled in", consequence, "make setup CMAKE_ARGS=-DGGML_CUDA=on, where nvcc is")
    if not any(device.name.startswith("CUDA") for device in build.devices):
        consequence = "compiled in, but it finds no GPU: every layer is computed on the CPU"
        return Finding("CUDA", _GROUP, "partly", "no device", consequence, "nvidia-smi; CUDA_VISIBLE_DEVICES; group video or render")
    features = ", ".join(f"{name} {value}" for name, value in build.features.get("CUDA", {}).items() if name in ("ARCHS", "VERSION"))
    return Finding("CUDA", _GROUP, "yes", ", ".join(("compiled in", *filter(None, [features]))))


def _device(device: Device) -> Finding:
    memory = NA if device.memory_bytes is None else format_size(device.memory_bytes)
    return Finding(f"device {device.name}", _GROUP, "yes", f"{device.description}, {device.kind}, memory {memory}")


# ── in the process of its own ─────────────────────────────────────────────────────────────────────────────────────────


def read() -> Build:
    """Ask the library, here. Raise whatever importing it raises; it may also end this process."""
    from brainjar.engine.bindings import lib

    so = lib._lib  # ggml's symbols are found through libllama, which is linked against it
    count = _function(so, "ggml_backend_reg_count", ctypes.c_size_t)()
    reg_get = _function(so, "ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
    reg_name = _function(so, "ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    return Build(
        version=_version(),
        ggml=_words(_function(so, "ggml_version", ctypes.c_char_p)()) if hasattr(so, "ggml_version") else None,
        library=str(so._name),
        features=parse(_words(lib.llama_print_system_info())),
        backends=tuple(_words(reg_name(reg_get(n))) for n in range(count)),
        devices=_devices(so),
    )


def parse(system_info: str) -> dict[str, dict[str, str]]:
    """The features of "CPU : AVX = 1 | OPENMP = 1 | CUDA : ARCHS = 870 | ", by backend. What it cannot read it leaves out."""
    found: dict[str, dict[str, str]] = {}
    backend = ""
    for part in system_info.split("|"):
        head, colon, rest = part.partition(" : ")
        if colon:
            backend, part = head.strip(), rest
            found.setdefault(backend, {})
        name, equals, value = part.partition("=")
        if equals and backend:
            found[backend][name.strip()] = value.strip()
    return found


def _devices(so: ctypes.CDLL) -> tuple[Device, ...]:
    get = _function(so, "ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    name, description = (_function(so, f"ggml_backend_dev_{what}", ctypes.c_char_p, ctypes.c_void_p) for what in ("name", "description"))
    kind = _function(so, "ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    size_p = ctypes.POINTER(ctypes.c_size_t)
    memory = _function(so, "ggml_backend_dev_memory", None, ctypes.c_void_p, size_p, size_p)
    found = []
    for n in range(_function(so, "ggml_backend_dev_count", ctypes.c_size_t)()):
        device, free, total = get(n), ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        number = kind(device)
        found.append(
            Device(
                name=_words(name(device)),
                description=_words(description(device)),
                kind=_DEVICE_KINDS[number] if 0 <= number < len(_DEVICE_KINDS) else NA,
                memory_bytes=total.value or None,
            )
        )
    return tuple(found)


def _function(so: ctypes.CDLL, name: str, result: type | None, *arguments: type) -> ctypes._NamedFuncPointer:
    found = so[name]  # not an attribute: that one is shared, and its types are not ours to set
    found.restype, found.argtypes = result, arguments
    return found


def _words(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace").strip()


def _version() -> str | None:
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> int:
    try:
        said = _Answer(build=read())
    except Exception as error:
        said = _Answer(error=" ".join(str(error).split()) or type(error).__name__)
    sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
    sys.stdout.flush()
    os._exit(0)  # without the library's destructors: some of them wait for a driver


if __name__ == "__main__":
    sys.exit(main())
