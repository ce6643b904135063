"""A trial of W&B's own agent: logs three steps and ends as its parameters say, the first time.

As the sweep made the run beforehand, that is no news to `run.resumed`, and `run.step` is 0 until something is logged.
"""

import os
import signal
import sys
import time

import wandb

run = wandb.init(resume="allow", group="paper", settings=wandb.Settings(x_disable_stats=True))
first = run.starting_step
if run.config.get("preempted") and not first:
    run.mark_preempting()
for step in range(first, first + 3):
    run.log({"step": step, "pid": os.getpid()})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
time.sleep(0 if first else run.config.get("sleep", 0))
code = 0 if first else run.config.get("code", 0)
run.finish(exit_code=code)
sys.exit(code)
