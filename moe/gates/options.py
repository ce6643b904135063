"""The settings of every gate, and the registry of gates.

Another package brings a gate by an entry point that leads to its options:

    [project.entry-points."moe.gates"]
    mine = "my_package.options:MyGateConfig"

    class MyGateConfig(GateConfig):
        kind: Literal["mine"] = "mine"
        implementation: ClassVar[str] = "my_package.gate:MyGate"
        sharpness: float = Field(1.0, gt=0, description="multiplies the logits")

after which ``gate.kind: mine`` and ``gate.sharpness`` are settings like any other, in sweep files too.
`moe.testing.GateContract` holds what the gate must keep to.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from moe.registry import Registry
from moe.section import Options, Positive, chosen, registered


class GateConfig(Options):
    """How images are given to experts. A gate's own options are fields of a subclass."""

    section: ClassVar[str] = "gate"
    choice: ClassVar[str] = "kind"

    kind: str = Field(description="name in moe.gates.options.GATES")

    def has_noise(self) -> bool:
        """Whether its scores have noise while training, which it reports (`Routing.noisy`, `Routing.scale`)."""
        return False


class NoisyTopKConfig(GateConfig):
    """The paper's gate (Equations 2 and 3)."""

    kind: Literal["noisy_top_k"] = "noisy_top_k"
    implementation: ClassVar[str] = "moe.gates.noisy_top_k:NoisyTopKGate"

    noisy: bool = Field(True, description="add input-dependent noise to the logits while training")

    def has_noise(self) -> bool:
        """Unless ``noisy`` is false."""
        return self.noisy


class TopKConfig(GateConfig):
    """The paper's gate without its noise: the same thing as ``noisy_top_k`` with ``noisy: false``, and the same run."""

    kind: Literal["top_k"] = "top_k"
    implementation: ClassVar[str] = "moe.gates.top_k:TopKGate"

    def hashed(self) -> dict[str, Any]:
        """As that of the gate it equals."""
        return NoisyTopKConfig(noisy=False).hashed()


class CosineConfig(GateConfig):
    """Directions compared with a learnt temperature (Chi et al. 2022)."""

    kind: Literal["cosine"] = "cosine"
    implementation: ClassVar[str] = "moe.gates.cosine:CosineGate"

    directions: int = Field(
        32, ge=1, le=2**20, description="dimensions in which an image's direction meets the experts'"
    )
    start_temperature: Positive = Field(0.3, description="temperature before training, which learns it")


class SigmoidBiasConfig(GateConfig):
    """Balance by a bias that is nudged instead of by a loss (Wang et al. 2024)."""

    kind: Literal["sigmoid_bias"] = "sigmoid_bias"
    implementation: ClassVar[str] = "moe.gates.sigmoid_bias:SigmoidBiasGate"

    bias_rate: float = Field(0.001, ge=0, description="by how much a step moves each expert's bias")


class SoftConfig(GateConfig):
    """All experts process every image: the upper bound of what routing can give."""

    kind: Literal["soft"] = "soft"
    implementation: ClassVar[str] = "moe.gates.soft:SoftGate"
    ignored: ClassVar[frozenset[str]] = frozenset({"model.top_k"})


class ExpertChoiceConfig(GateConfig):
    """Experts choose images, k an image on average (Zhou et al. 2022); in evaluation by thresholds that were learnt."""

    kind: Literal["expert_choice"] = "expert_choice"
    implementation: ClassVar[str] = "moe.gates.expert_choice:ExpertChoiceGate"

    threshold_rate: float = Field(
        0.1, gt=0, le=1, description="weight of the newest step in an expert's threshold, a running average"
    )


class RandomConfig(GateConfig):
    """Control: experts drawn for each image, the same for both views, in every epoch and at probing."""

    kind: Literal["random"] = "random"
    implementation: ClassVar[str] = "moe.gates.controls:RandomGate"
    ignored: ClassVar[frozenset[str]] = frozenset({"model.gate_channels"})


class RandomViewConfig(GateConfig):
    """Control: experts drawn anew for each view."""

    kind: Literal["random_view"] = "random_view"
    implementation: ClassVar[str] = "moe.gates.controls:RandomViewGate"
    ignored: ClassVar[frozenset[str]] = frozenset({"model.gate_channels"})


class FixedConfig(GateConfig):
    """Control: experts by class; needs a label for every image."""

    kind: Literal["fixed"] = "fixed"
    implementation: ClassVar[str] = "moe.gates.controls:FixedGate"
    needs_labels: ClassVar[bool] = True
    ignored: ClassVar[frozenset[str]] = frozenset({"model.gate_channels"})


def _checked(loaded: Any, name: str) -> type[GateConfig]:
    checked: type[GateConfig] = registered(GateConfig, loaded, name)
    return checked


GATES = Registry(
    "gate",
    "moe.gates",
    {
        "noisy_top_k": "moe.gates.options:NoisyTopKConfig",
        "top_k": "moe.gates.options:TopKConfig",
        "cosine": "moe.gates.options:CosineConfig",
        "sigmoid_bias": "moe.gates.options:SigmoidBiasConfig",
        "soft": "moe.gates.options:SoftConfig",
        "expert_choice": "moe.gates.options:ExpertChoiceConfig",
        "random": "moe.gates.options:RandomConfig",
        "random_view": "moe.gates.options:RandomViewConfig",
        "fixed": "moe.gates.options:FixedConfig",
    },
    _checked,
)


def _chosen(value: Any) -> Any:
    return chosen(value, GATES, GateConfig, default="noisy_top_k")


AnyGate = Annotated[SerializeAsAny[GateConfig], BeforeValidator(_chosen)]
