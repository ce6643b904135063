"""The settings of every objective, and the registry of objectives.

Another package brings one by an entry point of the group ``moe.objectives`` that leads to a subclass of LossConfig, as
moe/gates/options.py shows for gates. `moe.testing.ObjectiveContract` holds what an objective must keep to.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from moe.registry import Registry
from moe.section import Options, Positive, chosen, registered

# options that every run's identity held before each objective had its own; they stay, with these values where unread
_ALWAYS_HASHED = {"temperature": 0.5, "projection": 128}


class LossConfig(Options):
    """What is minimised (Section 3, Losses). An objective's own options are fields of a subclass."""

    section: ClassVar[str] = "loss"
    choice: ClassVar[str] = "objective"

    objective: str = Field(description="name in moe.objectives.options.OBJECTIVES")
    importance_weight: float = Field(0.1, ge=0, description="weight of the importance loss, Equation 4")

    def hashed(self) -> dict[str, Any]:
        """As every section's, with what older versions hashed for all objectives."""
        return _ALWAYS_HASHED | super().hashed()


class ContrastiveConfig(LossConfig):
    """NT-Xent of two views."""

    objective: Literal["contrastive"] = "contrastive"
    implementation: ClassVar[str] = "moe.objectives.contrastive:Contrastive"

    temperature: Positive = Field(0.5, description="NT-Xent temperature")
    projection: int = Field(128, ge=1, description="size of the projected embedding v")


class SupervisedConfig(LossConfig):
    """Cross-entropy of a linear classifier."""

    objective: Literal["supervised"] = "supervised"
    implementation: ClassVar[str] = "moe.objectives.supervised:Supervised"


def _checked(loaded: Any, name: str) -> type[LossConfig]:
    checked: type[LossConfig] = registered(LossConfig, loaded, name)
    return checked


OBJECTIVES = Registry(
    "objective",
    "moe.objectives",
    {
        "contrastive": "moe.objectives.options:ContrastiveConfig",
        "supervised": "moe.objectives.options:SupervisedConfig",
    },
    _checked,
)


def _chosen(value: Any) -> Any:
    return chosen(value, OBJECTIVES, LossConfig, default="contrastive")


AnyLoss = Annotated[SerializeAsAny[LossConfig], BeforeValidator(_chosen)]
