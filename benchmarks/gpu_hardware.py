"""gpu_check: what the device is, and the two rates that bound every step."""

import platform
import time
from collections.abc import Callable

import torch
from gpu_setting import Findings, Setting


def run(setting: Setting, findings: Findings) -> None:
    """Names, versions, matrix rates in TFLOP/s, bandwidth in GB/s, the cost of a launch in us."""
    cuda = setting.device.type == "cuda"
    findings.note("device", torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine())
    findings.note("torch", torch.__version__)
    findings.note("cuda", torch.version.cuda)
    if cuda:
        findings.note("memory_GiB", round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1))
    side = 256 if setting.tiny else 8192
    for name, dtype in {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}.items():
        a = torch.randn(side, side, device=setting.device).to(dtype)
        findings.note(f"{name}_TFLOP_s", round(2 * side**3 / seconds(setting, lambda a=a: a @ a) / 1e12, 3))
    whole = torch.zeros((1 if setting.tiny else 256) * 2**20, device=setting.device)
    other = torch.empty_like(whole)
    findings.note("copy_GB_s", round(2 * whole.nbytes / seconds(setting, lambda: other.copy_(whole)) / 1e9, 1))
    small = torch.zeros(1, device=setting.device)

    def launches() -> None:
        for _ in range(1000):
            small.add_(1)

    findings.note("launch_us", round(seconds(setting, launches) * 1e3, 2))


def seconds(setting: Setting, function: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of some calls, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        setting.wait()
        started = time.perf_counter()
        function()
        setting.wait()
        times.append(time.perf_counter() - started)
    return min(times[1:])
