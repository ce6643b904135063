"""The settings of every balancing loss beside its weight, and their registry.

The loss `x` has the weight ``loss.x_weight``, 0 for none, and its options are ``loss.x_<option>``; any number of losses
may be weighted at once. Another package brings one by an entry point of the group ``moe.balancing_losses`` that leads
to a subclass of BalancingConfig. `moe.testing.BalancingContract` holds what a balancing loss must keep to.
"""

from typing import Any, ClassVar

from moe.errors import UserError
from moe.registry import Registry, load
from moe.section import Section


class BalancingConfig(Section):
    """A balancing loss: its fields are its options.

    Attributes:
        implementation: ``package.module:Class``; imported when a model is trained.
        metric: the name under which its value, without the weight, is logged below ``train/`` and ``val/``.
        needs_noise: whether it is defined only for gates with noise (`moe.gates.options.GateConfig.has_noise`).
    """

    implementation: ClassVar[str]
    metric: ClassVar[str]
    needs_noise: ClassVar[bool] = False

    @classmethod
    def load(cls) -> Any:
        """The class that implements it."""
        return load(cls.implementation)


class ImportanceConfig(BalancingConfig):
    """Squared coefficient of variation of the importances (the paper's, Equation 4)."""

    implementation: ClassVar[str] = "moe.balancing.importance:ImportanceLoss"
    metric: ClassVar[str] = "importance_cv2"


class LoadConfig(BalancingConfig):
    """Squared coefficient of variation of the loads, smoothed by the gate's noise (Shazeer et al. 2017)."""

    implementation: ClassVar[str] = "moe.balancing.load:LoadLoss"
    metric: ClassVar[str] = "load_cv2"
    needs_noise: ClassVar[bool] = True


class SwitchConfig(BalancingConfig):
    """Share of images times mean probability, summed over experts (Fedus et al. 2022)."""

    implementation: ClassVar[str] = "moe.balancing.switch:SwitchLoss"
    metric: ClassVar[str] = "switch_loss"


class ZConfig(BalancingConfig):
    """Squared log-sum-exp of the logits: keeps them small (Zoph et al. 2022)."""

    implementation: ClassVar[str] = "moe.balancing.z:ZLoss"
    metric: ClassVar[str] = "z_loss"


class EntropyConfig(BalancingConfig):
    """Decisive for an image, even over images: minus their mutual information with the experts (Krause et al. 2010)."""

    implementation: ClassVar[str] = "moe.balancing.entropy:EntropyLoss"
    metric: ClassVar[str] = "entropy_loss"


def _checked(loaded: Any, name: str) -> type[BalancingConfig]:
    if not (isinstance(loaded, type) and issubclass(loaded, BalancingConfig)):
        raise UserError("it is no subclass of moe.balancing.options.BalancingConfig")
    missing = [field for field, info in loaded.model_fields.items() if info.is_required()]
    if missing:
        raise UserError(f"its option {missing[0]} has no default")
    if not (hasattr(loaded, "implementation") and hasattr(loaded, "metric")):
        raise UserError("it does not say where its class is (implementation) and how its value is logged (metric)")
    if not name.isidentifier():
        raise UserError(f'"{name}" cannot be part of a setting\'s name')
    return loaded


BALANCING = Registry(
    "balancing loss",
    "moe.balancing_losses",
    {
        "importance": "moe.balancing.options:ImportanceConfig",
        "load": "moe.balancing.options:LoadConfig",
        "switch": "moe.balancing.options:SwitchConfig",
        "z": "moe.balancing.options:ZConfig",
        "entropy": "moe.balancing.options:EntropyConfig",
    },
    _checked,
)
