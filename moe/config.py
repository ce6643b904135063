"""RunConfig: everything that defines one training run, frozen and typed; its hash is the run's id.

The defaults are the paper's recipe (Section 3, Appendix A.1) for E = 4, seed 0. Where the paper is silent,
docs/paper.md names the choice.
"""

import hashlib
import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from moe.errors import UserError, suggest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError(f"needs 0 < low <= high, not {list(pair)}")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Section(BaseModel):
    """A frozen group of settings that refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ModelConfig(Section):
    """The network (Section 3, Figure 1)."""

    experts: int = Field(4, ge=1, description="number of experts E")
    top_k: int = Field(2, ge=1, description="experts that process each image, k")
    width: float = Field(1.0, gt=0, le=4, description="multiplies every channel count; 1 is the paper's")
    gate_after: int = Field(3, ge=1, le=4, description="shared blocks before the gate")
    constant_params: bool = Field(True, description="divide the experts' widths by sqrt(E)")
    embedding: int = Field(256, ge=1, description="readout size before scaling by width / sqrt(E)")
    gate_channels: int = Field(64, ge=1, description="channels of the gate's convolution, before width")

    @model_validator(mode="after")
    def _top_k_fits(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"model.top_k={self.top_k} exceeds model.experts={self.experts}")
        return self


SHIPPED_GATES = frozenset({"noisy_top_k"})
SHIPPED_OBJECTIVES = frozenset({"contrastive", "supervised"})


class GateConfig(Section):
    """How images are given to experts (Equations 2 and 3)."""

    kind: str = Field("noisy_top_k", description="name in moe.gate.GATES")
    noisy: bool = Field(True, description="add input-dependent noise to the logits while training")


class LossConfig(Section):
    """What is minimised (Section 3, Losses)."""

    objective: str = Field("contrastive", description="name in moe.objectives.OBJECTIVES")
    temperature: Positive = Field(0.5, description="NT-Xent temperature")
    importance_weight: float = Field(0.1, ge=0, description="weight of the importance loss, Equation 4")
    projection: int = Field(128, ge=1, description="size of the projected embedding v")


class AugmentConfig(Section):
    """The two views (Appendix A.1 names the operations; strengths are SimCLR's, see docs/paper.md)."""

    crop_scale: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    flip: Fraction = 0.5
    jitter: Fraction = Field(0.8, description="probability of the colour jitter")
    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.4
    hue: float = Field(0.1, ge=0, le=0.5)
    grayscale: Fraction = 0.2
    blur: Fraction = 0.5
    blur_sigma: Range = (0.1, 2.0)


class TrainConfig(Section):
    """The optimisation (Appendix A.1)."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(256, ge=2, description="images a step; each gives two views")
    lr: Positive = 3e-4
    min_lr: float = Field(1e-6, ge=0, description="end of the cosine schedule")
    weight_decay: float = Field(1e-5, ge=0)
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of all gradients together; null: no limit")
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "16-mixed"
    sync_batch_norm: bool = Field(True, description="batch norm over all devices, so that their number does not matter")


class DataConfig(Section):
    """Which images (`moe data list`)."""

    name: str = Field("stl10", min_length=1, description="training images; `a+b` joins two stores")
    validation: str | None = Field(None, min_length=1, description="labelled store; default: the dataset's own")
    image_size: int = Field(96, ge=16, le=512, description="pixels a side")


class MachineConfig(Section):
    """How this machine does it; never part of a run's identity."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(1, ge=1, description="processes that share each batch, one a GPU (on CPUs: on this machine)")
    threads: int | None = Field(None, ge=1, description="CPU threads for torch; default: all")
    images: Literal["auto", "host", "device"] = Field("auto", description="where the uint8 images stay while training")
    experts: Literal["auto", "plain", "batched"] = Field(
        "auto", description="experts one after another or as one computation; auto: batched on one GPU, plain elsewhere"
    )
    deterministic: bool = Field(False, description="only algorithms that give the same bits again, also on a GPU")
    checkpoint_minutes: float = Field(10.0, ge=0, description="also save in mid-epoch, this often; 0: epoch ends only")


class RunConfig(Section):
    """One training run. `identity()` is its id: same config, same run."""

    seed: int = Field(0, ge=0, lt=2**31)
    model: ModelConfig = ModelConfig()
    gate: GateConfig = GateConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    machine: MachineConfig = MachineConfig()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.gate.kind in SHIPPED_GATES and self.loss.objective in SHIPPED_OBJECTIVES:
            return self
        from moe.gate import GATES  # loads torch, which a plan of thousands of cells does without
        from moe.objectives import OBJECTIVES

        for path, name, known in (
            ("gate.kind", self.gate.kind, GATES),
            ("loss.objective", self.loss.objective, OBJECTIVES),
        ):
            if name not in known:
                raise ValueError(f'{path}: unknown name "{name}": {suggest(name, known)}')
        return self

    @model_validator(mode="after")
    def _devices_share_evenly(self) -> Self:
        if self.train.batch_size % self.machine.devices:
            raise ValueError(
                f"machine.devices={self.machine.devices} does not divide train.batch_size={self.train.batch_size}"
            )
        return self

    def scientific(self) -> dict[str, Any]:
        """The settings that define the result, as plain JSON types: all but `machine`."""
        return self.model_dump(mode="json", exclude={"machine"})

    def identity(self) -> str:
        """The run's id: 12 hexadecimal digits of the SHA-256 of `scientific()` in canonical JSON."""
        text = json.dumps(self.scientific(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _sections(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _sections(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", annotation


def parameter_types() -> dict[str, Any]:
    """Every dotted parameter path of RunConfig with its Python type, in order."""
    return dict(_sections(RunConfig))


def is_number(annotation: Any) -> bool:
    """Whether a parameter of this type takes a number (text that YAML did not read as one is a mistake)."""
    if annotation in (int, float):
        return True
    if get_origin(annotation) in (Annotated, types.UnionType):
        return any(is_number(arg) for arg in get_args(annotation))
    return False


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths to nested sections: ``{"model.experts": 4}`` -> ``{"model": {"experts": 4}}``."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, leaf = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return tree


def flat(config: RunConfig) -> dict[str, Any]:
    """Every parameter of a config by dotted path, as plain JSON types."""
    tree = config.model_dump(mode="json")
    result = {}
    for path in parameter_types():
        value: Any = tree
        for part in path.split("."):
            value = value[part]
        result[path] = value
    return result


def check_paths(paths: Mapping[str, Any], where: str = "") -> None:
    """Refuse a dotted path that RunConfig does not have.

    Raises:
        UserError: names the path and the likeliest one meant.
    """
    known = parameter_types()
    for path in paths:
        if path not in known:
            raise UserError(f'{where}unknown parameter "{path}": {suggest(path, known)}')


def from_flat(values: Mapping[str, Any], base: Mapping[str, Any] | None = None, where: str = "") -> RunConfig:
    """A RunConfig from dotted paths laid over `base` (nested, as in a config file).

    Raises:
        UserError: for an unknown path or a value that its parameter does not take.
    """
    check_paths(values, where)
    tree = _merge(dict(base or {}), nested(values))
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(where + _sentence(error)) from None


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _sentence(error: ValidationError) -> str:
    """The first problem of a pydantic error, in one sentence."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f'unknown parameter "{path}": {suggest(path, parameter_types())}'
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"] == "value_error" and path.count(".") == 0 and path != "seed":
        return message  # raised by a section as a whole; it names its parameters itself
    return f"{path}={first['input']!r}: {message}"


def parse_assignments(pairs: list[str], where: str = "") -> dict[str, Any]:
    """``["model.experts=8", "gate.noisy=false"]`` to values, each read as YAML.

    Raises:
        UserError: for a pair without ``=`` or with an unknown path.
    """
    values = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f'{where}"{pair}" is not KEY=VALUE, for example model.experts=8')
        try:  # W&B hands a null over as the text None
            values[path] = None if text == "None" else yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            raise UserError(f'{where}"{pair}": {text} is not a value in YAML; check its brackets and quotes') from None
    check_paths(values, where)
    return values
