"""The settings of every objective, and the registry of objectives.

Another package brings one by an entry point of the group ``moe.objectives`` that leads to a subclass of LossConfig, as
moe/gates/options.py shows for gates. `moe.testing.ObjectiveContract` holds what an objective must keep to.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, create_model

from moe.balancing.options import BALANCING, BalancingConfig
from moe.registry import Registry
from moe.section import Later, Options, Positive, chosen, registered

# options that every run's identity held before each objective had its own; they stay, with these values where unread
_ALWAYS_HASHED = {"temperature": 0.5, "projection": 128}


class LossConfig(Options):
    """What is minimised (Section 3, Losses). An objective's own options are fields of a subclass."""

    section: ClassVar[str] = "loss"
    choice: ClassVar[str] = "objective"

    objective: str = Field(description="name in moe.objectives.options.OBJECTIVES")
    importance_weight: float = Field(0.1, ge=0, description="weight of the importance loss, Equation 4")
    load_weight: Annotated[float, Later(0.0)] = Field(0.0, ge=0, description="weight of the load loss (needs noise)")
    switch_weight: Annotated[float, Later(0.0)] = Field(0.0, ge=0, description="weight of Switch Transformers' loss")
    z_weight: Annotated[float, Later(0.0)] = Field(0.0, ge=0, description="weight of the router z-loss")
    entropy_weight: Annotated[float, Later(0.0)] = Field(0.0, ge=0, description="weight of the entropy loss")

    def weights(self) -> dict[str, float]:
        """The weight of every balancing loss by name."""
        return {name: getattr(self, f"{name}_weight") for name in BALANCING.usable()}

    def options_of(self, name: str) -> BalancingConfig:
        """The options of a balancing loss."""
        kind = BALANCING[name]
        return kind.model_validate({option: getattr(self, f"{name}_{option}") for option in kind.model_fields})

    def idle(self) -> dict[str, str]:
        """Options of balancing losses that have no weight."""
        without = [name for name, weight in self.weights().items() if not weight]
        return {
            f"{name}_{option}": f"loss.{name}_weight=0" for name in without for option in BALANCING[name].model_fields
        }

    def hashed(self) -> dict[str, Any]:
        """As every section's, with what older versions hashed for all objectives."""
        idle = self.idle()
        return _ALWAYS_HASHED | {name: value for name, value in super().hashed().items() if name not in idle}


class ContrastiveConfig(LossConfig):
    """NT-Xent of two views."""

    objective: Literal["contrastive"] = "contrastive"
    implementation: ClassVar[str] = "moe.objectives.contrastive:Contrastive"

    temperature: Positive = Field(0.5, description="NT-Xent temperature")
    projection: int = Field(128, ge=1, le=2**20, description="size of the projected embedding v")


class SupervisedConfig(LossConfig):
    """Cross-entropy of a linear classifier."""

    objective: Literal["supervised"] = "supervised"
    implementation: ClassVar[str] = "moe.objectives.supervised:Supervised"
    needs_labels: ClassVar[bool] = True


def _checked(loaded: Any, name: str) -> type[LossConfig]:
    checked: type[LossConfig] = registered(LossConfig, loaded, name)
    fields = _brought()
    if not fields:
        return checked
    return create_model(checked.__name__, __base__=checked, __module__=checked.__module__, __doc__=checked.__doc__,
                        **fields)  # fmt: skip


def _brought() -> dict[str, Any]:
    """Weights and options of the balancing losses that other packages bring, as fields of every LossConfig."""
    fields: dict[str, Any] = {}
    for name, kind in BALANCING.usable().items():
        if f"{name}_weight" in LossConfig.model_fields:
            continue
        weight = Field(0.0, ge=0, description=f"weight of the balancing loss {name}")
        fields[f"{name}_weight"] = (Annotated[float, Later(0.0)], weight)
        fields |= {f"{name}_{option}": (field.annotation, field) for option, field in kind.model_fields.items()}
    return fields


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
