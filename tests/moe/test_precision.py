"""Float32 that is float32."""

import pytest
import torch
from torch.nn import functional as F

from moe.precision import _SWITCHES, at_least_float32, full_float32


def settings():
    newer = [switch.fp32_precision for switch in _SWITCHES]
    try:
        return [*newer, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    except RuntimeError:
        return newer


def by_the_older_switches():
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True


def by_the_newer_switches():
    for switch, precision in zip(_SWITCHES, ("tf32", "tf32", "tf32", "bf16", "bf16"), strict=True):
        switch.fp32_precision = precision


@pytest.fixture(params=[lambda: None, by_the_older_switches, by_the_newer_switches], ids=["default", "older", "newer"])
def chosen(request):
    """Settings of a process, made in each of torch's ways."""
    older = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    newer = [switch.fp32_precision for switch in _SWITCHES]
    request.param()
    yield settings()
    torch.set_float32_matmul_precision(older[0])
    torch.backends.cudnn.allow_tf32 = older[1]
    for switch, precision in zip(_SWITCHES, newer, strict=True):
        switch.fp32_precision = precision


def test_nothing_is_reduced_within_and_all_is_as_before_after(chosen):
    with torch.autocast("cpu", torch.bfloat16):
        with full_float32("cpu"):
            assert {switch.fp32_precision for switch in _SWITCHES} == {"ieee"}
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.is_autocast_enabled("cpu")
            assert F.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")
    assert settings() == chosen


def test_an_error_leaves_nothing_changed(chosen):
    with pytest.raises(ValueError, match="in the middle"), full_float32("cpu"):
        raise ValueError("in the middle")
    assert settings() == chosen


def test_products_and_convolutions_have_the_same_bits_whatever_was_chosen(chosen):
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(64, 32, 8, 8, generator=generator), torch.randn(64, 32, 3, 3, generator=generator)
    with full_float32("cpu"):
        y = F.conv2d(x, w)
        product = F.linear(x.flatten(1), torch.ones(64, 2048))
    torch.testing.assert_close(y.double(), F.conv2d(x.double(), w.double()), rtol=0, atol=1e-4)
    sums = x.double().flatten(1).sum(1, keepdim=True).expand(-1, 64)
    torch.testing.assert_close(product.double(), sums, rtol=0, atol=1e-3)


def test_half_precision_is_widened_and_nothing_else():
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert at_least_float32(torch.zeros(1, dtype=dtype)).dtype == torch.float32
    assert at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
