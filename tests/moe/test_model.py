import math

import pytest
import torch

from moe.backbone import ResidualUnit, block_channels
from moe.config import ModelConfig
from moe.experts import weighted_sum
from moe.gates.options import NoisyTopKConfig
from moe.model import build_model
from moe.objectives.contrastive import Contrastive
from moe.objectives.options import ContrastiveConfig
from moe.routing import Routing

SMALL = {"width": 0.0625}


def images(count=6, size=32, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small(**changes):
    torch.manual_seed(0)
    return build_model(ModelConfig(**(SMALL | changes)))


def count_by_hand(experts):
    """Parameters of network and projection head, from the layer sizes in Appendix A.1 and docs/paper.md."""

    def s(base):
        return math.floor(base / math.sqrt(experts))

    def unit(i, o):  # two 3x3 convolutions with batch norm
        return 9 * i * o + 9 * o * o + 4 * o

    def halving(i, o):  # with a 1x1 convolution and batch norm around it
        return unit(i, o) + i * o + 2 * o

    shared = 27 * 64 + 128 + halving(64, 64) + halving(64, 128) + halving(128, s(256))
    gate = 2 * (9 * s(256) * 64 + 128 + 64 * experts + experts)
    blocks = halving(s(256), s(512)) + unit(s(512), s(512)) + halving(s(512), s(1024)) + unit(s(1024), s(1024))
    readout = s(1024) * s(2048) + 2 * s(2048) + s(2048) * s(512) + 2 * s(512) + s(512) * s(256) + s(256)
    head = s(256) ** 2 + 2 * s(256) + s(256) * 128 + 128
    return shared + gate + experts * (blocks + readout), head


@pytest.mark.parametrize(("experts", "channels"), [(4, 128), (8, 90), (16, 64)])
def test_sizes_of_the_papers_models(experts, channels):
    config = ModelConfig(experts=experts)
    with torch.device("meta"):
        model = build_model(config)
        head = Contrastive(model.embedding, 0, ContrastiveConfig())
    assert block_channels(config)[2] == channels == model.embedding
    network = sum(p.numel() for p in model.parameters())
    total = network + sum(p.numel() for p in head.parameters())
    assert (network, total - network) == count_by_hand(experts)
    assert 45.8e6 <= network <= 46.1e6
    assert 45.8e6 <= total <= 46.1e6


def test_without_constant_params_each_expert_keeps_its_width():
    assert block_channels(ModelConfig(experts=16, constant_params=False)) == [64, 128, 256, 512, 1024]
    assert block_channels(ModelConfig(experts=16, gate_after=2)) == [64, 32, 64, 128, 256]


def test_the_gate_sees_12_by_12_at_96_pixels():
    model = small().eval()
    with torch.no_grad():
        h = model.shared(images(1, 96))
        assert h.shape[2:] == (12, 12)
        assert model.experts[0].blocks(h).shape[2:] == (3, 3)


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (2, 1), (4, 2), (4, 4)])
@pytest.mark.parametrize("gate_after", [1, 2, 3, 4])
def test_sparse_equals_dense(experts, top_k, gate_after):
    """Equation 1 with every expert run on every image and the gates as weights."""
    model = small(experts=experts, top_k=top_k, gate_after=gate_after).eval()
    x = images()
    with torch.no_grad():
        z, routing, _ = model.embed(x)
        readouts = model.all_readouts(x)
        assert readouts.shape == (experts, 6, model.embedding)
        dense = torch.einsum("be,ebd->bd", routing.gates(), readouts)
        torch.testing.assert_close(z, dense)
        torch.testing.assert_close(model(x), z)
        for mine, theirs in zip(model.route(x)[:3], routing[:3], strict=True):
            torch.testing.assert_close(mine, theirs)


def test_route_and_readouts_share_one_pass():
    model = small().eval()
    with torch.no_grad():
        routing, readouts = model.route_and_readouts(images())
        torch.testing.assert_close(readouts, model.all_readouts(images()))
        torch.testing.assert_close(routing.logits, model.route(images()).logits)


@pytest.mark.parametrize("rows", [[], [4, 1], [0, 1, 2, 3, 4, 5]])
def test_what_all_parts_make_of_images_is_what_each_is_asked_for(rows):
    model, x = small().eval(), images()
    with torch.no_grad():
        described = model.describe(x, None, torch.tensor(rows, dtype=torch.int64))
        torch.testing.assert_close(described.z, model(x))
        torch.testing.assert_close(described.routing.logits, model.route(x).logits)
        torch.testing.assert_close(described.shared, model.shared(x).mean(dim=(2, 3)))
        torch.testing.assert_close(described.readouts, model.all_readouts(x)[:, rows].transpose(0, 1))


def statistics(expert):
    return {name: value.clone() for name, value in expert.state_dict().items() if "running" in name or "num_b" in name}


def routed(indices, experts=4):
    indices = torch.tensor(indices)
    weights = torch.full(indices.shape, 1 / indices.shape[1])
    return Routing(torch.zeros(len(indices), experts), indices, weights)


def test_batch_norm_of_an_expert_sees_only_its_images():
    model = small().train()
    h = model.shared(images()).detach()
    other = h.clone()
    other[3:] = torch.randn(other[3:].shape, generator=torch.Generator().manual_seed(5)) * 10
    routing = routed([[0, 1]] * 3 + [[2, 3]] * 3)
    first = weighted_sum(model.experts, h, routing)[:3]
    second = weighted_sum(model.experts, other, routing)[:3]
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("size", [16, 32, 96])
def test_an_expert_with_one_image_neither_fails_nor_learns_statistics_from_it(size):
    model = small().train()
    h = model.shared(images(6, size)).detach()
    before = statistics(model.experts[3])
    z = weighted_sum(model.experts, h, routed([[0, 1]] * 5 + [[0, 3]]))
    assert torch.isfinite(z).all()
    z.sum().backward()
    after = statistics(model.experts[3])
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.experts[3].training
    assert any(p.grad.abs().sum() > 0 for p in model.experts[3].parameters())


def test_an_idle_expert_gets_no_gradients_and_keeps_its_statistics():
    model = small().train()
    h = model.shared(images()).detach()
    before = statistics(model.experts[2])
    weighted_sum(model.experts, h, routed([[0, 1]] * 6)).sum().backward()
    for parameter in model.experts[2].parameters():
        assert parameter.grad is None
    assert all(torch.equal(before[name], value) for name, value in statistics(model.experts[2]).items())


def test_gradients_of_unchosen_images_are_zero():
    model = small().train()
    h = model.shared(images()).detach().requires_grad_()
    weighted_sum(model.experts, h, routed([[0, 1]] * 4 + [[2, 3]] * 2))[:4].sum().backward()
    assert h.grad[:4].abs().sum() > 0
    assert h.grad[4:].abs().sum() == 0


def test_gate_settings_reach_the_gate():
    assert build_model(ModelConfig(**SMALL), NoisyTopKConfig(noisy=False)).gate.noise is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_strided_unit_on_one_pixel_has_whole_gradients_in_bfloat16(layout):
    """What torch's strided convolution leaves unwritten there shows after memory with other content was freed."""
    unit = ResidualUnit(16, 32, stride=2).to(memory_format=layout)
    x = torch.randn(8, 16, 1, 1, generator=torch.Generator().manual_seed(0))
    gradients = []
    for enabled in (True, False):
        litter = [torch.full((32, 16, 3, 3), 1e30, dtype=torch.bfloat16) for _ in range(16)]
        del litter
        unit.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = unit(x.contiguous(memory_format=layout))
        (y.float().square().mean()).backward()
        gradients.append(unit.conv1.weight.grad.clone())
    half, full = gradients
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.05 * full.abs().max().item())
    assert not half[:, :, 0].any()
