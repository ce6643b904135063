"""All experts at once against one after another."""

import copy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from moe.batched import BatchedExperts, rows_needed, seats
from moe.config import ModelConfig
from moe.data.loading import Batch
from moe.experts import weighted_sum
from moe.export import export_model, load_model
from moe.lightning_module import MoEModule
from moe.model import build_model
from moe.routing import Routing
from tests.conftest import tiny_config

IMAGES = 12
ROUTINGS = {
    "even": [[image % 4, (image + 1) % 4] for image in range(IMAGES)],
    "two experts idle": [[0, 3]] * IMAGES,
    "one image": [[0, 1]] * 6 + [[1, 3]] * 5 + [[2, 0]],
    "two images": [[0, 1]] * 5 + [[1, 3]] * 5 + [[2, 0]] * 2,
}


def routed(chosen, experts, dtype):
    weights = torch.rand(len(chosen), len(chosen[0]), generator=torch.Generator().manual_seed(1), dtype=dtype)
    return Routing(torch.zeros(len(chosen), experts, dtype=dtype), torch.tensor(chosen), weights)


def model_of(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    model = build_model(ModelConfig(**({"width": 0.0625} | changes))).to(dtype).train()
    for parameter in model.parameters():  # no scale at one, no shift at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.add_(0.1 * torch.rand_like(buffer))
    return model.to(memory_format=torch.channels_last)


def outcome(model, routing, *, at_once, size=5, autocast=None):
    """Readouts, gradients and running statistics of a step."""
    dtype = next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(2)
    channels = model.gate.logits[0].in_channels
    h = torch.randn(len(routing.indices), channels, size, size, generator=generator, dtype=dtype).requires_grad_()
    weights = routing.weights.clone().requires_grad_()
    target = torch.randn(len(h), model.embedding, generator=generator, dtype=dtype)
    batched = BatchedExperts(model.experts) if at_once else None
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        z = weighted_sum(model.experts, h, routing._replace(weights=weights), batched)
    if at_once:
        assert batched._bank is not None, "the plain path was taken"
    (z * target).sum().backward()
    found = {"z": z.detach(), "h": h.grad, "weights": weights.grad}
    for name, parameter in model.experts.named_parameters():
        none = parameter.grad is None  # of an idle expert
        found[f"gradient of {name}"] = torch.zeros_like(parameter) if none else parameter.grad.clone()
    return found | {f"buffer {name}": buffer.clone() for name, buffer in model.experts.named_buffers()}


def agree(first, second, tolerance):
    assert first.keys() == second.keys()
    for name, expected in first.items():
        error = (second[name].double() - expected.double()).abs().max()
        assert error <= tolerance * max(1.0, expected.double().abs().max()), (name, error)


@pytest.fixture
def any_load(monkeypatch):
    """No step is too uneven: the plain path would otherwise compare with itself."""
    monkeypatch.setattr("moe.batched._MOST", 100.0)


@pytest.mark.usefixtures("any_load")
class TestEquals:
    @pytest.mark.parametrize("mode", ["train", "eval"])
    @pytest.mark.parametrize("chosen", ROUTINGS)
    def test_readouts_gradients_and_statistics(self, chosen, mode):
        plain = getattr(model_of(), mode)()
        model = copy.deepcopy(plain)
        routing = routed(ROUTINGS[chosen], 4, torch.float64)
        for _ in range(2):  # a second step starts from the statistics of the first
            agree(outcome(plain, routing, at_once=False), outcome(model, routing, at_once=True), 1e-10)
            plain.zero_grad()
            model.zero_grad()

    @pytest.mark.parametrize("gate_after", [1, 2, 3, 4])
    @pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (3, 1), (5, 3)])
    def test_every_place_of_the_gate(self, experts, top_k, gate_after):
        plain = model_of(experts=experts, top_k=top_k, gate_after=gate_after)
        chosen = [[(image + slot) % experts for slot in range(top_k)] for image in range(IMAGES)]
        routing = routed(chosen, experts, torch.float64)
        model = copy.deepcopy(plain)
        agree(outcome(plain, routing, at_once=False), outcome(model, routing, at_once=True, size=5), 1e-10)

    @pytest.mark.parametrize("size", [1, 2, 12])
    def test_latents_of_other_sizes(self, size):
        plain = model_of()
        routing = routed(ROUTINGS["one image"], 4, torch.float64)
        model = copy.deepcopy(plain)
        agree(*(outcome(m, routing, at_once=m is model, size=size) for m in (plain, model)), 1e-10)

    def test_weights_that_are_not_channels_last(self):
        plain = model_of().to(memory_format=torch.contiguous_format)
        routing = routed(ROUTINGS["even"], 4, torch.float64)
        model = copy.deepcopy(plain)
        agree(*(outcome(m, routing, at_once=m is model) for m in (plain, model)), 1e-10)

    def test_float32(self):
        plain = model_of(torch.float32)
        routing = routed(ROUTINGS["one image"], 4, torch.float32)
        model = copy.deepcopy(plain)
        agree(*(outcome(m, routing, at_once=m is model) for m in (plain, model)), 1e-3)

    def test_channels_widened_for_tensor_cores(self, monkeypatch):
        """As in half precision, here in float64, where nothing hides behind rounding."""
        monkeypatch.setattr("moe.batched._multiple_of", lambda _dtype: 8)
        plain = model_of(width=0.07)
        assert all(parameter.shape[0] % 8 for parameter in plain.experts[0].blocks.parameters())
        routing = routed(ROUTINGS["one image"], 4, torch.float64)
        model = copy.deepcopy(plain)
        agree(*(outcome(m, routing, at_once=m is model) for m in (plain, model)), 1e-10)

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
    def test_autocast_errs_no_more_than_the_plain_path(self, half):
        exact_model = model_of()
        routing = routed(ROUTINGS["one image"], 4, torch.float64)
        plain, model = (copy.deepcopy(exact_model).float() for _ in range(2))
        exact = outcome(exact_model, routing, at_once=False)
        single = routing._replace(weights=routing.weights.float())
        errors = []
        for m in (plain, model):
            found = outcome(m, single, at_once=m is model, autocast=half)
            assert found["z"].dtype == torch.float32
            errors.append({k: (found[k].double() - v.double()).norm().item() for k, v in exact.items()})
        scale = {name: value.double().norm().item() for name, value in exact.items()}
        for name, error in errors[1].items():
            assert error <= 2 * errors[0][name] + 0.02 * scale[name] + 1e-3, name


class TestRows:
    def test_an_even_batch_needs_little_more_than_its_share(self):
        assert rows_needed([256] * 4) == 256
        assert rows_needed([250, 262, 240, 272]) == 288
        assert rows_needed([64] * 15 + [70]) == 72

    def test_a_batch_that_is_too_uneven_takes_the_plain_path(self):
        assert rows_needed([0] * 15 + [1024]) is None
        plain = model_of(torch.float32, experts=16, top_k=1)
        routing = routed([[3]] * IMAGES, 16, torch.float32)
        batched = BatchedExperts(plain.experts)
        z = weighted_sum(plain.experts, torch.randn(IMAGES, 4, 5, 5), routing, batched)
        assert batched._bank is None
        assert torch.isfinite(z).all()

    def test_never_fewer_rows_than_images_and_few_different_numbers(self):
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.multinomial(torch.ones(8), 512, replacement=True, generator=generator) for _ in range(50)]
        sizes = [part.bincount(minlength=8).tolist() for part in drawn]
        rows = [rows_needed(part) for part in sizes]
        assert all(row >= max(part) for row, part in zip(rows, sizes, strict=True))
        assert len(set(rows)) <= 8

    def test_every_slot_has_a_row_of_its_expert(self):
        routing = routed(ROUTINGS["one image"], 4, torch.float32)
        place = seats(routing, 16, 2 * IMAGES)
        flat = routing.indices.flatten()
        assert place.row_S.unique().numel() == len(flat)
        assert torch.equal(place.row_S // 16, flat)
        assert torch.equal(place.slot_T[place.row_S], torch.arange(len(flat)))
        assert torch.equal(place.valid_T.view(4, 16).sum(dim=1), place.count_E)
        assert place.count_E.tolist() == [7, 11, 1, 5]


class TestOwnership:
    """The experts keep parameters and buffers of their own, whatever the bank does behind them."""

    def step(self, model, batched):
        dtype = next(model.parameters()).dtype
        routing = routed(ROUTINGS["even"], 4, dtype)
        h = torch.randn(IMAGES, 8, 5, 5, dtype=dtype, generator=torch.Generator().manual_seed(3))
        weighted_sum(model.experts, h, routing, batched).sum().backward()

    def test_names_values_and_strides_stay(self):
        model = model_of()
        before = {name: (value.clone(), value.stride()) for name, value in model.state_dict().items()}
        BatchedExperts(model.experts).bank()
        after = model.state_dict()
        assert before.keys() == after.keys()
        for name, (value, stride) in before.items():
            assert torch.equal(after[name], value)
            assert after[name].stride() == stride

    def test_checkpoint_and_export_hold_the_same_values(self, tmp_path):
        model = model_of(torch.float32)
        plain = copy.deepcopy(model)
        BatchedExperts(model.experts).bank()
        card = {
            "run_id": "0" * 12, "seed": 0, "epoch": 1, "data": tiny_config().data, "mean": (0.5,) * 3, "sd": (0.2,) * 3,
            "data_digest": "",
        }  # fmt: skip
        for name, of in (("plain", plain), ("banked", model)):
            export_model(of, tmp_path / name, **card)
        files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "banked")]
        assert files[0] == files[1]
        assert torch.equal(
            load_model(tmp_path / "banked")[0].experts[2].readout[0].weight, plain.experts[2].readout[0].weight
        )
        torch.save(model.state_dict(), tmp_path / "checkpoint")
        saved = torch.load(tmp_path / "checkpoint", weights_only=True)
        assert all(torch.equal(saved[name], value) for name, value in plain.state_dict().items())

    def test_loading_weights_reaches_the_next_step(self):
        model, other = model_of(), model_of()
        for parameter in other.parameters():
            parameter.data.mul_(1.5)
        batched = BatchedExperts(model.experts)
        routing = routed(ROUTINGS["even"], 4, torch.float64)
        h = torch.randn(IMAGES, 8, 5, 5, dtype=torch.float64)
        for assign in (False, True):
            batched.bank()
            model.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
            z = weighted_sum(model.eval().experts, h, routing, batched)
            torch.testing.assert_close(z, weighted_sum(other.eval().experts, h, routing))

    def test_a_model_that_moves_or_is_copied_gets_another_bank(self):
        model = model_of()
        batched = model._batched
        first = batched.bank()
        assert batched.bank() is first
        model.float()
        second = batched.bank()
        assert second is not first
        copied = copy.deepcopy(model)
        assert copied._batched.experts is copied.experts
        self.step(copied, copied._batched)
        assert batched.bank() is second
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_gradients_accumulate(self):
        plain = model_of()
        model = copy.deepcopy(plain)
        batched = BatchedExperts(model.experts)
        for step in range(4):
            for of, how in ((plain, None), (model, batched)):
                if step == 3:  # an expert that was given none starts anew, the others go on
                    for parameter in of.experts[1].parameters():
                        parameter.grad = None
                self.step(of, how)
        for ours, theirs in zip(model.experts.parameters(), plain.experts.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("how", ["frozen", "watched", "mixed types", "mixed modes"])
    def test_experts_that_are_not_alike_take_the_plain_path(self, how):
        model = model_of()
        if how == "frozen":
            model.experts[1].requires_grad_(False)
        elif how == "watched":
            model.experts[2].blocks[0].register_forward_hook(lambda *_: None)
        elif how == "mixed modes":
            model.experts[3].eval()
        else:
            model.experts[0].float()
        assert BatchedExperts(model.experts).bank() is None

    def test_several_processes_take_the_plain_path(self, monkeypatch):
        """Their exchange of gradients and of batch statistics watches the experts' own parameters and layers."""
        batched = BatchedExperts(model_of().experts)
        assert batched.bank() is not None
        monkeypatch.setattr("moe.batched.world", lambda: (0, 2))
        assert batched.bank() is None

    def test_hooks_added_later_run(self):
        model, seen = model_of(), []
        batched = BatchedExperts(model.experts)
        self.step(model, batched)
        model.experts[2].register_forward_hook(lambda *_: seen.append("images"))
        self.step(model, batched)
        assert seen == ["images"]
        assert batched.bank() is None

    def test_an_expert_frozen_later_keeps_its_weights(self):
        model = model_of()
        batched = BatchedExperts(model.experts)
        self.step(model, batched)
        model.zero_grad()
        model.experts[1].requires_grad_(False)
        self.step(model, batched)
        assert all(parameter.grad is None for parameter in model.experts[1].parameters())

    def test_optimisers_go_on_from_step_to_step_as_on_the_plain_path(self):
        plain = model_of()
        model = copy.deepcopy(plain)
        batched = BatchedExperts(model.experts)
        for of, how in ((plain, None), (model, batched)):
            optimizer = torch.optim.Adam(of.experts.parameters(), lr=1e-3, weight_decay=1e-5)
            for _ in range(5):
                optimizer.zero_grad()
                self.step(of, how)
                torch.nn.utils.clip_grad_norm_(of.parameters(), 1.0)
                optimizer.step()
        for ours, theirs in zip(model.experts.parameters(), plain.experts.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def training_step(experts, path):
    """A step of a whole module whose gate spreads images evenly, as a function without arguments."""
    changes = {"model__experts": experts, "machine__experts": path, "data__image_size": 16}
    module = MoEModule(tiny_config(**changes), (0.5,) * 3, (0.25,) * 3).train()
    for branch in (module.model.gate.logits, module.model.gate.noise):
        branch[-1].weight.data.zero_()  # noise alone decides
        branch[-1].bias.data.zero_()
    places = torch.arange(128)
    images = torch.randint(0, 256, (128, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def step():
        module.zero_grad()
        values, *_ = module._two_view_step(Batch(images, torch.full_like(places, -1), places), 0)
        values["loss"].backward()

    step()
    return step


def operator_calls(step):
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return [event.name for event in found.events() if event.name.startswith("aten::")]


@pytest.mark.filterwarnings("ignore::UserWarning")  # the profiler's about the machine
@pytest.mark.slow
class TestCalls:
    def test_a_step_has_as_many_operator_calls_for_4_8_and_16_experts(self):
        counts = [len(operator_calls(training_step(experts, "batched"))) for experts in (4, 8, 16)]
        assert max(counts) <= 1.05 * min(counts)
        plain = [len(operator_calls(training_step(experts, "plain"))) for experts in (4, 16)]
        assert plain[1] > 1.5 * plain[0]  # what the other path would count
        assert counts[2] < plain[1]

    @pytest.mark.parametrize("path", ["plain", "batched"])
    def test_a_step_asks_for_no_single_number(self, path):
        """Each would wait for the device; the experts' sizes come in one list."""
        step = training_step(4, path)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            step()
        asked = [event for event in found.events() if event.name == "aten::item"]
        assert [event for event in asked if event.cpu_parent.name != "aten::var"] == []  # torch's way on CPUs

    def test_the_machines_choice_decides(self):
        for path, at_once in (("auto", None), ("plain", False), ("batched", True)):
            module = MoEModule(tiny_config(machine__experts=path), (0.5,) * 3, (0.25,) * 3)
            assert module.model.experts_at_once is at_once
        step = {path: operator_calls(training_step(4, path)) for path in ("auto", "plain", "batched")}
        assert len(step["auto"]) == len(step["plain"])
        assert step["batched"].count("aten::bmm") > 30
        assert step["plain"].count("aten::bmm") == 0
