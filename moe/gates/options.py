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
from moe.section import Options, chosen, registered


class GateConfig(Options):
    """How images are given to experts. A gate's own options are fields of a subclass."""

    section: ClassVar[str] = "gate"
    choice: ClassVar[str] = "kind"

    kind: str = Field(description="name in moe.gates.options.GATES")


class NoisyTopKConfig(GateConfig):
    """The paper's gate (Equations 2 and 3)."""

    kind: Literal["noisy_top_k"] = "noisy_top_k"
    implementation: ClassVar[str] = "moe.gates.noisy_top_k:NoisyTopKGate"

    noisy: bool = Field(True, description="add input-dependent noise to the logits while training")


def _checked(loaded: Any, name: str) -> type[GateConfig]:
    checked: type[GateConfig] = registered(GateConfig, loaded, name)
    return checked


GATES = Registry("gate", "moe.gates", {"noisy_top_k": "moe.gates.options:NoisyTopKConfig"}, _checked)


def _chosen(value: Any) -> Any:
    return chosen(value, GATES, GateConfig, default="noisy_top_k")


AnyGate = Annotated[SerializeAsAny[GateConfig], BeforeValidator(_chosen)]
