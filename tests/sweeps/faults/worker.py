"""A worker without training: does to each run what a plan says. Run as a script; starts in a few milliseconds."""

import json
import os
import signal
import sys
import time
from pathlib import Path

PARENT = os.getppid()
folder = Path(os.environ["MOE_TEST_PLAN"])
if (folder / "imports fail").exists():
    sys.exit("Traceback (most recent call last):\nImportError: libcudart.so.13: cannot open shared object file")


def attempt(folder, run):
    """Number of this attempt, from 0, counted over all processes."""
    number = 0
    while True:
        try:
            (folder / f"{run}.{number}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return number


def at_work(*_):
    (folder / "at work").write_text(str(os.getpid()))


def stay(act=lambda: None):
    """Until ended from outside, or by the parent's end."""
    at_work()
    while os.getppid() == PARENT:
        act()
        time.sleep(0.005)
    os._exit(1)


def end(*_):
    os._exit(75)


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


line = sys.stdin.readline()
if not line:
    sys.exit(0)
order = json.loads(line)
log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
os.dup2(log, 1)
os.dup2(log, 2)
home = Path(order["config"]).parent
actions = json.loads((folder / "plan.json").read_text())[home.name]
action = actions[min(attempt(folder, home.name), len(actions) - 1)]
if action == "finish":
    (home / "summary.json").write_text('{"last": {"val/loss": 0.5}}')
    (home / "state.json").write_text('{"state": "finished"}')
elif action == "polite":
    signal.signal(signal.SIGTERM, end)
    stay()
elif action == "silent":
    stay()
elif action == "stubborn":
    signal.signal(signal.SIGTERM, at_work)
    stay()
elif action == "busy":
    signal.signal(signal.SIGTERM, end)
    stay(lambda: say("at work"))
elif action == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif action == "wait":
    stay(lambda: (folder / "go on").exists() and os._exit(1))
else:
    say("what it did before")
    say(f"error: {action}")
    codes = {"mistake": 2, "stopped": 76, "OutOfMemoryError": 71, "MemoryError": 71, "disk": 74}
    sys.exit(next((code for start, code in codes.items() if action.startswith(start)), 1))
