"""Run the benchmarks, each figure beside its peer's in the same run; write RESULTS.md, the pages and pictures behind it.

    python -m benchmarks [--only PART,PART] [--quick] [--model GGUF] [--list] [--render]

What is found is kept as `benchmarks/results/PART.json`; a part that runs again replaces its own rows. A part that fails is
said and does not stop the others. `--quick` runs a few rounds of each and keeps what it finds in `.bench/quick`. `--render`
measures nothing: it writes the pages anew from what is kept. Exit status: 0 done, 1 a part failed, 2 usage.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
import traceback
from pathlib import Path

import msgspec

from benchmarks import report
from benchmarks.machine import ROOT, load, machine
from benchmarks.parts import PARTS, Options, Unmeasurable, measure
from benchmarks.peers import HOME, Peers

RESULTS = ROOT / "benchmarks"
QUICK = HOME / "quick"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PART,…", type=_parts, default=tuple(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help=f"a few rounds, kept in {QUICK.relative_to(ROOT)}")
    parser.add_argument("--model", metavar="GGUF", type=Path, help="the large model of `memory`; else qwen2.5-coder-1.5b of the catalog")
    parser.add_argument("--list", action="store_true", help="name every part")
    parser.add_argument("--render", action="store_true", help="write the pages anew, measure nothing")
    args = parser.parse_args(argv)
    if args.list:
        for name, title in PARTS.items():
            print(f"{name:<11} {title}")
        return 0
    if args.model is not None and not args.model.is_file():
        parser.error(f"--model {args.model}: is no file")
    home = QUICK if args.quick else RESULTS
    failed = [] if args.render else _run(args.only, home, args.quick, args.model)
    try:
        written = report.write(home, report.load(home / "results", PARTS), tuple(PARTS))
    except report.Unreadable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten: {written[0]} and {len(written) - 1} files in {home / 'results'}")
    for name, why in failed:
        print(f"error: {name} failed: {why}", file=sys.stderr)
    return 1 if failed else 0


def _parts(text: str) -> tuple[str, ...]:
    asked = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in asked if name not in PARTS]
    if unknown or not asked:
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(unknown) or repr(text)}; there are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in asked)


def _run(names: tuple[str, ...], home: Path, quick: bool, model: Path | None) -> list[tuple[str, str]]:
    """Measure and keep; return the parts that failed and why."""
    peers = Peers.get()
    for name, why in peers.absent.items():
        print(f"{name}: not had: {why}", flush=True)
    options = Options(peers=peers, quick=quick, model=model, say=lambda text: print(f"  {text}", flush=True))
    failed = []
    for name in names:
        print(f"\n{name}: {PARTS[name]}", flush=True)
        began, before = time.monotonic(), load()
        try:
            found = measure(name, options)
        except KeyboardInterrupt:
            raise SystemExit(f"\nstopped in {name}; what was measured before is kept") from None
        except Exception as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            if not isinstance(error, Unmeasurable):
                log = HOME / f"{name}.log"
                log.write_text(traceback.format_exc())
                why += f" ({log})"
            print(f"  failed: {why}", flush=True)
            failed.append((name, why))
            _note_failure(home, name, why)
            continue
        (HOME / f"{name}.log").unlink(missing_ok=True)
        one = report.Measurement(
            part=name,
            title=PARTS[name],
            at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
            seconds=round(time.monotonic() - began, 1),
            load=(before, load()),
            machine=machine(peers.versions),
            found=found,
        )
        report.save(home / "results", one)
        for figure in found.figures:
            print(report.row(figure), flush=True)
        for note in found.notes:
            print(f"  {note}", flush=True)
    return failed


def _note_failure(home: Path, name: str, why: str) -> None:
    """What it found when it last ran stays, and says that it is not of this run."""
    try:
        kept = report.load(home / "results", [name])
    except report.Unreadable:
        return
    for one in kept:
        report.save(home / "results", msgspec.structs.replace(one, failure=why))


if __name__ == "__main__":
    sys.exit(main())
