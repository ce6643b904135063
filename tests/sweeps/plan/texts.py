"""Texts of sweep files."""

LR = "train.lr: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-2}"


def grid(*parameters):
    return "\n".join(["method: grid", "parameters:", *(f"  {line}" for line in parameters)])


def random(*parameters, cap=20):
    return "\n".join(["method: random", f"run_cap: {cap}", "parameters:", *(f"  {line}" for line in parameters)])


def bayes(*parameters, cap=20, metric="{name: val/loss}"):
    top = ["method: bayes", f"run_cap: {cap}", f"metric: {metric}", "parameters:"]
    return "\n".join([*top, *(f"  {line}" for line in parameters)])


def seeds(top=""):
    return f"{top}\nmethod: grid\nparameters: {{seed: {{value: 0}}}}"
