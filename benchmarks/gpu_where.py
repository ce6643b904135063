"""gpu_check: where a step's time goes, and the least it could take.

A step cannot be faster than its FLOPs at the measured matrix rate, nor than its bytes at the measured bandwidth. FLOPs
are those of the matrix products and convolutions, forward and backward, of the images that experts were given; bytes
are what every operator reads and writes, each one apart: fused operators need fewer.
"""

import time
from typing import Any

import torch
from gpu_hardware import seconds
from gpu_setting import Findings, Loop, Setting
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
COPIES = ("cudaMemcpyAsync", "cudaMemcpy")


class Bytes(TorchDispatchMode):
    """Counts the bytes that operators read and write; views and empty tensors cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and compute."""
        result = operator(*args, **(kwargs or {}))
        if not operator.is_view and "empty" not in str(operator):
            self.total += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        return result


def run(setting: Setting, findings: Findings) -> None:
    """For each number of experts and path: milliseconds, calls, launches, waits, busy time, top kernels."""
    side = 256 if setting.tiny else 8192
    a = torch.randn(side, side, device=setting.device).half()
    rate = 2 * side**3 / seconds(setting, lambda: a @ a)
    whole = torch.zeros((1 if setting.tiny else 256) * 2**20, device=setting.device)
    other = torch.empty_like(whole)
    bandwidth = 2 * whole.nbytes / seconds(setting, lambda: other.copy_(whole))
    for experts in setting.experts:
        flops = 0
        for path in ("plain", "batched"):
            if setting.late():
                findings.note("failed", f"the time was over before E = {experts}, {path}")
                return
            config = setting.config({"model.experts": experts, "train.precision": "16-mixed"}, experts=path)
            loop = Loop(config, setting.pixels(config))
            for _ in range(1 if setting.tiny else 5):
                loop()
            if path == "plain":  # computes the routed images and no others
                flops = _flops(loop)
            row = _measured(loop, setting) | _least(loop, flops, rate, bandwidth)
            row["TFLOP_s"] = round(flops / row["ms"] / 1e9, 2)
            findings.note(f"E = {experts}, {path}", row)
            del loop


def _flops(loop: Loop) -> int:
    with FlopCounterMode(display=False) as counter:
        loop()
    return int(counter.get_total_flops())


def _least(loop: Loop, flops: int, rate: float, bandwidth: float) -> dict[str, Any]:
    with Bytes() as counted:
        loop()
    return {
        "GFLOP": round(flops / 1e9, 2),
        "GB": round(counted.total / 1e9, 3),
        "least_ms_for_FLOPs": round(1e3 * flops / rate, 3),
        "least_ms_for_bytes": round(1e3 * counted.total / bandwidth, 3),
    }


def _measured(loop: Loop, setting: Setting) -> dict[str, Any]:
    repeats = 1 if setting.tiny else 10
    setting.wait()
    started = time.perf_counter()
    for _ in range(repeats):
        loop()
    queued = time.perf_counter() - started
    setting.wait()
    took = time.perf_counter() - started
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if setting.device.type == "cuda" else [])
    with profile(activities=kinds) as found:
        loop()
        setting.wait()
    averages = found.key_averages()

    def calls(names: tuple[str, ...]) -> int:
        return sum(entry.count for entry in averages if entry.key in names)

    time_of = "self_device_time_total" if setting.device.type == "cuda" else "self_cpu_time_total"
    kernels = sorted(averages, key=lambda entry: -getattr(entry, time_of))
    return {
        "ms": round(1e3 * took / repeats, 3),
        "host_ms": round(1e3 * queued / repeats, 3),
        "operator_calls": sum(entry.count for entry in averages if entry.key.startswith("aten::")),
        "launches": calls(LAUNCHES),
        "waits": max(0, calls(WAITS) - 1),  # the last is ours
        "copies": calls(COPIES),
        "device_ms": round(sum(entry.self_device_time_total for entry in averages) / 1e3, 3),
        "top": {entry.key[:70]: round(getattr(entry, time_of) / 1e3, 3) for entry in kernels[:8]},
    }
