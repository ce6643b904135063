"""gpu_check: several runs on one device at a time, each a process of its own, as agents start them."""

import json
import os
import subprocess
import sys
import time

from gpu_setting import Findings, Loop, Setting

E = 8


def run(setting: Setting, findings: Findings) -> None:
    """Views/s in all of 1, 2, 3 and 4 runs that train side by side."""
    for count in (2,) if setting.tiny else (1, 2, 3, 4):
        if setting.late():
            findings.note("failed", f"the time was over before {count} runs at a time")
            return
        findings.note(f"{count} at a time", round(sum(_side_by_side(count, setting))))


def _side_by_side(count: int, setting: Setting) -> list[float]:
    """Views/s of each; they start together, once all are warm."""
    seconds = 0.3 if setting.tiny else 5.0
    command = [sys.executable, __file__, json.dumps({"tiny": setting.tiny, "seconds": seconds})]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # the project need not be installed
    runs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(count)
    ]
    try:
        for each in runs:
            if each.stdout is None or each.stdout.readline() != "warm\n":
                raise RuntimeError(f"one of {count} runs did not start")
        for each in runs:
            print("go", file=each.stdin, flush=True)
        return [float(each.communicate()[0]) for each in runs]
    finally:
        for each in runs:
            each.kill()
            each.wait()


def _one(*, tiny: bool, seconds: float) -> None:
    """A run of its own: warm up, wait for the others, train for some seconds, print views/s."""
    setting = Setting(tiny=tiny, until=float("inf"))
    config = setting.config({"model.experts": E, "train.precision": "16-mixed"})
    loop = Loop(config, setting.pixels(config))
    for _ in range(2 if tiny else 10):
        loop()
    setting.wait()
    print("warm", flush=True)
    sys.stdin.readline()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        loop()
        steps += 1
    setting.wait()
    print(2 * config.train.batch_size * steps / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    _one(**json.loads(sys.argv[1]))
