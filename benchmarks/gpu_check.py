"""What a GPU makes of this project, in one command for whoever has one for eight minutes.

    python benchmarks/gpu_check.py                 writes gpu_check.json and gpu_check.md
    python benchmarks/gpu_check.py --tiny          the same on any machine in seconds, to see that it works

Sections, each a process of its own, so that one that fails or hangs takes nothing else with it:

    hardware   what it is; its measured matrix rate and memory bandwidth
    recipes    every recipe of the shipped sweep files trains 20 steps
    same       experts at once against one after another, GPU against CPU
    speed      views/s of ours, ours one after another, the literal recipe, lightly (if installed) and dense experts
    where      launches, waits and kernels of a step; its FLOPs and bytes, and the least time these would take
    together   views/s in all of 1, 2, 3 and 4 runs at a time

Images are random and made in memory. Needs torch, torchvision, lightning, numpy, pydantic and PyYAML.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHARES = {"hardware": 0.05, "recipes": 0.25, "same": 0.1, "speed": 0.3, "where": 0.15, "together": 0.15}
STOPPED = "stopped: its share of the time was over"


def in_process(name: str, result: Path, seconds: float, *, tiny: bool) -> None:
    """Run a section here. What it finds is written after each finding."""
    from gpu_setting import Findings, Setting

    findings = Findings(result)
    try:
        section = importlib.import_module(f"gpu_{name}")
        section.run(Setting(tiny=tiny, until=time.monotonic() + seconds), findings)
    except Exception as error:  # noqa: BLE001 - whatever a driver may raise; it is reported
        findings.note("failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def in_child(name: str, result: Path, seconds: float, *, tiny: bool) -> None:
    """Run a section in a process of its own, which ends when its time is over."""
    command = [sys.executable, __file__, "--section", name, "--out", str(result), "--seconds", str(seconds)]
    try:
        ended = subprocess.run([*command, *(["--tiny"] if tiny else [])], timeout=seconds + 20, check=False)
    except subprocess.TimeoutExpired:
        _note(result, STOPPED)
        return
    if ended.returncode:
        _note(result, f"its process ended with {ended.returncode}")


def _note(result: Path, failure: str) -> None:
    found = read(result)
    result.write_text(json.dumps({"failed": failure} | found))


def read(result: Path) -> dict[str, Any]:
    """What a section has found so far."""
    found: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    return found


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Run all sections within the time."""
    started, findings = time.monotonic(), dict[str, Any]()
    total = 60 * options.minutes
    left = dict(SHARES)
    for name in SHARES:
        remaining = total - (time.monotonic() - started)
        seconds = remaining * left[name] / sum(left.values())  # what an earlier section did not use is shared out
        del left[name]
        print(f"{name} (up to {seconds:.0f} s)", file=sys.stderr, flush=True)
        result = options.out.with_suffix(f".{name}.json")
        result.unlink(missing_ok=True)
        begun = time.monotonic()
        (in_process if options.here else in_child)(name, result, seconds, tiny=options.tiny)
        findings[name] = read(result) | {"seconds": round(time.monotonic() - begun, 1)}
        result.unlink(missing_ok=True)
        if "failed" in findings[name]:
            print(f"  {findings[name]['failed']}", file=sys.stderr, flush=True)
        _write(options.out, findings)
    return findings


def _write(out: Path, findings: dict[str, Any]) -> None:
    """After every section, so that nothing is lost when the machine is."""
    from gpu_report import markdown

    out.with_suffix(".json").write_text(json.dumps(findings, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(findings))


def main() -> None:
    """Parse the options, run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="OUT.json and OUT.md are written")
    parser.add_argument("--tiny", action="store_true", help="small models, few steps, on whatever device there is")
    parser.add_argument("--here", action="store_true", help="all sections in this process")
    parser.add_argument("--section", choices=SHARES, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        in_process(options.section, options.out, options.seconds, tiny=options.tiny)
        return
    findings = check(options)
    print(options.out.with_suffix(".md").read_text())
    failed = [name for name, found in findings.items() if "failed" in found]
    if failed:
        raise SystemExit(f"not all is well: {', '.join(failed)}; see {options.out.with_suffix('.md')}")


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    main()
