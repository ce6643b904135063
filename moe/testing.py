"""The promises of gates, objectives, foreign models and datasets as tests, for those here and those of other packages.

class TestMyGate(GateContract):
    def config(self) -> GateConfig:
        return MyGateConfig(sharpness=2.0)
"""

import json
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from moe.balancing.base import BalancingLoss
from moe.balancing.options import BalancingConfig
from moe.config import RunConfig
from moe.data.datasets import Dataset
from moe.data.readers import no_progress
from moe.errors import UserError
from moe.foreign.checked import Foreign
from moe.gates.base import Gate, keep_top_k
from moe.gates.options import GateConfig
from moe.gates.told import Told
from moe.objectives.base import Objective
from moe.objectives.options import LossConfig
from moe.routing import NONE, Routing
from moe.section import Options

_IMAGES, _CHANNELS, _HIDDEN, _EXPERTS, _TOP_K, _SIDE, _EMBEDDING, _CLASSES = 6, 5, 3, 4, 2, 4, 8, 3


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class OptionsContract:
    """The promises of the options of anything that is chosen by name."""

    def config(self) -> Options:
        """The options under test."""
        raise NotImplementedError

    def test_every_option_has_a_default_and_says_what_it_is(self) -> None:
        """So that it can be listed and left out."""
        for name, option in type(self.config()).offered().items():
            assert not option.is_required(), name
            assert option.description, name

    def test_options_survive_json_and_other_processes(self) -> None:
        """A run's config.json holds them; a run on several devices hands them over."""
        config = self.config()
        tree = {config.section: json.loads(json.dumps(config.model_dump(mode="json")))}
        assert getattr(RunConfig.model_validate(tree), config.section) == config
        assert pickle.loads(pickle.dumps(config)) == config


class GateContract(OptionsContract):
    """The promises that every gate keeps (`moe.gates.base.Gate`). Subclass it and return options from `config`."""

    def config(self) -> GateConfig:
        """The options of the gate under test."""
        raise NotImplementedError

    def gate(self, top_k: int = _TOP_K, seed: int = 0) -> Gate:
        """The gate under test, with weights drawn from a seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            gate: Gate = self.config().load()(_CHANNELS, _HIDDEN, _EXPERTS, top_k, self.config())
        return gate

    def latents(self, count: int = _IMAGES, seed: int = 0) -> Tensor:
        """Latents of so many images."""
        return _drawn(count, _CHANNELS, _SIDE, _SIDE, seed=seed)

    def told(self, count: int = _IMAGES) -> Tensor | None:
        """What the gate is told of so many images; None for one that looks at them and may draw its own noise."""
        told = self.gate().told
        if told is Told.NOISE:
            return None
        if told is Told.CLASS:
            return (torch.arange(count) % _CLASSES).unsqueeze(1)
        return _drawn(count, _EXPERTS, seed=2)

    def test_it_is_a_gate(self) -> None:
        """A subclass of `Gate`, whose options say that it needs labels if it is told classes."""
        assert isinstance(self.gate(), Gate)
        assert self.config().needs_labels or self.gate().told is not Told.CLASS

    def test_shapes_and_sums(self) -> None:
        """K experts an image, all different, the largest first; weights that sum to 1. At most, if not `exact`."""
        for training in (True, False):
            for top_k in range(1, _EXPERTS + 1):
                gate = self.gate(top_k).train(training)
                routing = gate(self.latents(), self.told())
                assert routing.logits.shape == (_IMAGES, _EXPERTS)
                assert routing.indices.shape == routing.weights.shape == (_IMAGES, gate.top_k)
                assert routing.indices.dtype == torch.int64
                filled = routing.indices != NONE
                assert filled.all() or not gate.exact
                for row, full in zip(routing.indices.tolist(), filled.sum(dim=1).tolist(), strict=True):
                    assert len(set(row[:full])) == full
                    assert set(row[:full]) <= set(range(_EXPERTS))
                    assert set(row[full:]) <= {NONE}
                assert (routing.weights.diff(dim=1) <= 0).all()
                assert (routing.weights[~filled] == 0).all()
                sums = routing.weights.sum(dim=1)
                assert (sums <= 1 + 1e-5).all()
                if gate.exact:
                    torch.testing.assert_close(sums, torch.ones(_IMAGES))

    def test_decisions_are_float32_under_autocast(self) -> None:
        """Bfloat16 has too few digits to tell two experts apart."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            routing = self.gate()(self.latents(), self.told())
        assert routing.logits.dtype == routing.weights.dtype == torch.float32

    def test_an_image_is_routed_alike_in_any_company(self) -> None:
        """In evaluation: a probe's batches are not those of training."""
        gate, latents, told = self.gate().eval(), self.latents(), self.told()
        together = gate(latents, told)
        for row in range(_IMAGES):
            alone = gate(latents[row : row + 1], None if told is None else told[row : row + 1])
            assert torch.equal(alone.indices[0], together.indices[row])
            torch.testing.assert_close(alone.weights[0], together.weights[row])

    def test_the_same_noise_gives_the_same_routing(self) -> None:
        """In training: a resumed run repeats its step."""
        told = self.told()
        noise = _drawn(_IMAGES, _EXPERTS, seed=1) if told is None else told
        first, second = (self.gate().train()(self.latents(), noise) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            assert one is other is None or torch.equal(one, other)

    def test_it_reports_its_noise_while_training_if_its_options_say_so(self) -> None:
        """Scores of which the k largest are chosen, and a scale above 0; nothing else has either."""
        for training in (True, False):
            routing = self.gate().train(training)(self.latents(), self.told())
            if training and self.config().has_noise():
                assert torch.equal(routing.noisy.topk(_TOP_K, dim=1).indices, routing.indices)
                assert (routing.scale > 0).all()
            else:
                assert routing.noisy is routing.scale is None

    def test_gradients_reach_every_parameter(self) -> None:
        """While training; a parameter without one would break a run on several devices."""
        gate = self.gate().train()
        if any(True for _ in gate.parameters()):
            gate(self.latents(), self.told()).weights[:, 0].sum().backward()
        assert all(parameter.grad is not None for parameter in gate.parameters())


class ObjectiveContract(OptionsContract):
    """The promises that every objective keeps (`moe.objectives.base.Objective`)."""

    def config(self) -> LossConfig:
        """The options of the objective under test."""
        raise NotImplementedError

    def objective(self) -> Objective:
        """The objective under test, with weights drawn from a seed."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            objective: Objective = self.config().load()(_EMBEDDING, _CLASSES, self.config())
        return objective

    def views(self) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of two views, which take gradients, and labels."""
        a, b = _drawn(2, _IMAGES, _EMBEDDING)
        return a.requires_grad_(), b.requires_grad_(), torch.arange(_IMAGES) % _CLASSES

    def test_it_is_an_objective(self) -> None:
        """A subclass of `Objective`."""
        assert isinstance(self.objective(), Objective)

    def test_it_does_without_labels_unless_its_options_say_that_it_needs_them(self) -> None:
        """A class of -1 is one that nobody knows."""
        a, b, labels = self.views()
        if not self.config().needs_labels:
            assert self.objective()(a, b, torch.full_like(labels, -1)).loss.isfinite()

    def test_a_finite_float32_scalar_with_gradients(self) -> None:
        """To both views; metrics have none."""
        a, b, labels = self.views()
        loss, metrics = self.objective()(a, b, labels)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        loss.backward()
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.abs().sum() > 0
        assert b.grad.abs().sum() > 0
        assert all(value.shape == () and not value.requires_grad for value in metrics.values())

    def test_float32_whatever_the_autocast(self) -> None:
        """Losses are sums of many terms."""
        with torch.autocast("cpu", torch.bfloat16):
            assert self.objective()(*self.views()).loss.dtype == torch.float32

    def test_views_are_exchangeable(self) -> None:
        """Neither is the first."""
        a, b, labels = self.views()
        objective = self.objective().eval()
        torch.testing.assert_close(objective(a, b, labels).loss, objective(b, a, labels).loss)


class BalancingContract:
    """The promises that every balancing loss keeps (`moe.balancing.base.BalancingLoss`)."""

    def config(self) -> BalancingConfig:
        """The options of the loss under test."""
        raise NotImplementedError

    def loss(self) -> BalancingLoss:
        """The loss under test."""
        loss: BalancingLoss = self.config().load()(self.config())
        return loss

    def routing(self, logits_BE: Tensor) -> Routing:
        """What a top-k gate makes of these logits."""
        return Routing(logits_BE, *keep_top_k(logits_BE, _TOP_K))

    def test_it_describes_itself(self) -> None:
        """Its value has a name in the logs; every option says what it is."""
        assert self.config().metric.isidentifier()
        assert all(option.description for option in type(self.config()).model_fields.values())
        assert isinstance(self.loss(), BalancingLoss)

    def test_a_finite_float32_scalar_with_a_gradient(self) -> None:
        """To the logits, whatever the autocast."""
        logits = _drawn(_IMAGES, _EXPERTS).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.loss()(self.routing(logits))
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        loss.backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        assert logits.grad.abs().sum() > 0

    def test_the_gradient_is_that_of_small_steps(self) -> None:
        """In float64, by central differences."""
        logits = _drawn(_IMAGES, _EXPERTS).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda l_BE: self.loss()(self.routing(l_BE)), (logits,))

    def test_numbering_plays_no_part(self) -> None:
        """Of experts or of images."""
        logits = _drawn(_IMAGES, _EXPERTS)
        value = self.loss()(self.routing(logits))
        torch.testing.assert_close(self.loss()(self.routing(logits.flip(0))), value)
        torch.testing.assert_close(self.loss()(self.routing(logits.flip(1))), value)


class ForeignModelContract:
    """The promises of a model for `moe probe --model` (`moe.foreign.base.ForeignModel`)."""

    def model(self) -> nn.Module:
        """The model under test, as its factory makes it."""
        raise NotImplementedError

    def images(self, count: int = _IMAGES) -> Tensor:
        """So many prepared images."""
        side = self._checked().preparation.image_size
        return _drawn(count, 3, side, side)

    def test_it_offers_what_probes_ask(self) -> None:
        """Preparation, routing and readouts, of the shapes and values that are needed."""
        foreign = self._checked()
        routing, readouts = self._answers(foreign, self.images())
        assert readouts.shape == (foreign.sizes[0], _IMAGES, foreign.sizes[2])
        assert routing.indices.shape == (_IMAGES, foreign.sizes[1])

    def test_an_image_is_answered_alike_in_any_company(self) -> None:
        """And each time: a probe's batches are its own."""
        foreign, images = self._checked(), self.images()
        together, readouts = self._answers(foreign, images)
        for row in range(_IMAGES):
            alone, readout = self._answers(foreign, images[row : row + 1])
            assert torch.equal(alone.indices[0], together.indices[row])
            torch.testing.assert_close(alone.weights[0], together.weights[row], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(readout[:, 0], readouts[:, row], rtol=1e-4, atol=1e-5)

    def test_its_weights_are_tensors(self) -> None:
        """So that a safetensors file can hold them, and a checksum tells them from others."""
        assert len(self._checked().digest) == 64

    def _checked(self) -> Foreign:
        return Foreign(self.model().eval(), "the model under test").eval()

    def _answers(self, foreign: Foreign, x_BCHW: Tensor) -> tuple[Routing, Tensor]:
        with torch.inference_mode():
            return foreign.route_and_readouts(x_BCHW)


class DatasetContract:
    """The promises that every dataset keeps (`moe.data.datasets.Dataset`)."""

    def dataset(self) -> Dataset:
        """The dataset under test."""
        raise NotImplementedError

    def source(self, folder: Path) -> Path | None:
        """Original files for it, written into a folder; None for a dataset that is built in."""
        return None

    def test_it_describes_itself(self) -> None:
        """One line for `moe data list`, and names for its stores that `+` does not join."""
        dataset = self.dataset()
        assert dataset.about.strip()
        assert "\n" not in dataset.about
        assert isinstance(dataset.probes, tuple)
        assert isinstance(dataset.builtin, bool)
        names = (dataset.train, dataset.validation, *dataset.probes)
        assert all(name and "+" not in name and "/" not in name for name in names)

    def test_a_source_that_is_not_its_own_is_a_mistake(self, tmp_path: Path) -> None:
        """Named as such, and nothing is written."""
        (tmp_path / "other").mkdir()
        try:
            self.dataset().prepare(tmp_path / "data", tmp_path / "other", no_progress)
        except UserError:
            assert list((tmp_path / "data").glob("*/manifest.json")) == []
        else:
            raise AssertionError("it took an empty folder for its source")

    def test_it_makes_its_stores_and_again_the_same(self, tmp_path: Path) -> None:
        """With progress that ends, intact, labelled where routing is watched."""
        dataset, root = self.dataset(), tmp_path / "data"
        source = self.source(tmp_path / "source")
        seen: list[tuple[int, int]] = []
        stores = dataset.prepare(root, source, lambda done, total: seen.append((done, total)))
        by_name = {store.name: store for store in stores}
        assert {dataset.train, dataset.validation, *dataset.probes} <= set(by_name)
        assert {file.parent.name for file in root.glob("*/manifest.json")} == set(by_name)
        assert seen[-1][0] == seen[-1][1]
        for store in stores:
            store.verify()
        digests = [store.digest() for store in stores]
        assert [store.digest() for store in dataset.prepare(root, source, no_progress)] == digests
