"""RunConfig: everything that defines one training run, frozen and typed; its hash is the run's id.

The defaults are the paper's recipe (Section 3, Appendix A.1) for E = 4, seed 0. Where the paper is silent,
docs/paper.md names the choice.
"""

import datetime as dt
import hashlib
import json
import re
import types
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Self, Union, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from moe.balancing.options import BALANCING
from moe.errors import UserError, suggest
from moe.gates.options import GATES, AnyGate, GateConfig, NoisyTopKConfig
from moe.objectives.options import OBJECTIVES, AnyLoss, LossConfig
from moe.registry import Registry
from moe.section import Fraction, Options, Positive, Range, Section, sentence, shown

_LONGEST = 10_000  # characters of a value
_LARGEST = 2**63
_OF_ANOTHER_BASE = re.compile(r"[-+]?(0[0-7_]*[0-7][0-7_]*|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_AS_WRITTEN = re.compile(r"(?!(None|null|Null|NULL)\Z)[A-Za-z0-9_][\w.+-]*")  # what images can be called, and the like
_NO_VALUE = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class ModelConfig(Section):
    """The network (Section 3, Figure 1)."""

    experts: int = Field(4, ge=1, le=4096, description="number of experts E")
    top_k: int = Field(2, ge=1, description="experts that process each image, k")
    width: float = Field(1.0, gt=0, le=4, description="multiplies every channel count; 1 is the paper's")
    gate_after: int = Field(3, ge=1, le=4, description="shared blocks before the gate")
    constant_params: bool = Field(True, description="divide the experts' widths by sqrt(E)")
    embedding: int = Field(256, ge=1, le=2**20, description="readout size before scaling by width / sqrt(E)")
    gate_channels: int = Field(64, ge=1, le=2**20, description="channels of the gate's convolution, before width")

    @model_validator(mode="after")
    def _top_k_fits(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"model.top_k={self.top_k} exceeds model.experts={self.experts}")
        return self


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
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads, fixed; default: all that others leave cores for"
    )
    images: Literal["auto", "host", "device"] = Field("auto", description="where the uint8 images stay while training")
    experts: Literal["auto", "plain", "batched"] = Field(
        "auto", description="experts one after another or as one computation; auto: batched on one GPU, plain elsewhere"
    )
    deterministic: bool = Field(False, description="only algorithms that give the same bits again, also on a GPU")
    checkpoint_minutes: float = Field(10.0, ge=0, description="also save in mid-epoch, this often; 0: epoch ends only")
    keep_epochs: Literal["log"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        description="epochs whose models are kept: [0, 5, 20], 0 being the untrained one; log: 0, 1, 2, 5, 10, 20, ...",
    )

    def kept_of(self, epochs: int) -> frozenset[int]:
        """The epochs up to `epochs` after which the model is kept."""
        if self.keep_epochs != "log":
            return frozenset(epoch for epoch in self.keep_epochs if epoch <= epochs)
        spaced = (step * 10**power for power in range(len(str(epochs))) for step in (1, 2, 5))
        return frozenset({0, *(epoch for epoch in spaced if epoch <= epochs)})


def _default_loss() -> LossConfig:
    """The paper's objective, with the balancing losses that other packages bring, of weight 0."""
    kind: type[LossConfig] = OBJECTIVES["contrastive"]
    return kind.model_validate({})


class RunConfig(Section):
    """One training run. `identity()` is its id: same config, same run."""

    seed: int = Field(0, ge=0, lt=2**31)
    model: ModelConfig = ModelConfig()
    gate: AnyGate = NoisyTopKConfig()
    loss: AnyLoss = Field(default_factory=_default_loss)
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    machine: MachineConfig = MachineConfig()

    @model_validator(mode="after")
    def _devices_share_evenly(self) -> Self:
        if self.train.batch_size % self.machine.devices:
            raise ValueError(
                f"machine.devices={self.machine.devices} does not divide train.batch_size={self.train.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _losses_suit_the_gate(self) -> Self:
        if self.gate.has_noise():
            return self
        for name, weight in self.loss.weights().items():
            if weight and BALANCING[name].needs_noise:
                raise ValueError(
                    f"loss.{name}_weight={weight} needs the noise of gate.kind=noisy_top_k with gate.noisy=true; "
                    f"choose that gate, or loss.{name}_weight=0"
                )
        return self

    def scientific(self) -> dict[str, Any]:
        """The settings that define the result, as plain JSON types: all but `machine`."""
        return self.model_dump(mode="json", exclude={"machine"})

    def hashed(self) -> dict[str, Any]:
        """What defines the run's identity, as plain JSON types.

        That is `scientific()` without settings that are `Later` while they mean "as before", and with the defaults
        of settings that the chosen gate and objective do not read.
        """
        tree = {name: self._hashed(name) for name in type(self).model_fields if name != "machine"}
        for path in self.gate.ignored | self.loss.ignored:
            section, _, name = path.partition(".")
            if name in tree[section]:
                tree[section][name] = _defaults()[section][name]
        return tree

    def unread(self, paths: Collection[str]) -> dict[str, str]:
        """Which of these settings, by dotted path, this run does not read, and what was chosen instead.

        They make no other run. For example ``{"gate.noisy": "gate.kind=soft"}``.
        """
        found = {}
        for chosen in (self.gate, self.loss):
            own = {f"{chosen.section}.{option}" for option in type(chosen).model_fields}
            idle = {f"{chosen.section}.{option}": because for option, because in chosen.idle().items()}
            why = f"{chosen.section}.{chosen.choice}={chosen.named()}"
            for path in paths:
                if path in chosen.ignored or (path.startswith(f"{chosen.section}.") and path not in own):
                    found[path] = why
                elif path in idle:
                    found[path] = idle[path]
        return found

    def _hashed(self, name: str) -> Any:
        value = getattr(self, name)
        return value.hashed() if isinstance(value, Section) else value

    def identity(self) -> str:
        """The run's id: 12 hexadecimal digits of the SHA-256 of `hashed()` in canonical JSON."""
        text = json.dumps(self.hashed(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _defaults() -> dict[str, Any]:
    return RunConfig().model_dump(mode="json")


class Choice(NamedTuple):
    """A section whose settings are those of the thing chosen: its registry, and what all of its kinds have."""

    registry: Registry[type[GateConfig]] | Registry[type[LossConfig]]
    base: type[Options]

    @property
    def path(self) -> str:
        """The setting that chooses, e.g. ``gate.kind``."""
        return f"{self.base.section}.{self.base.choice}"


CHOICES = {"gate": Choice(GATES, GateConfig), "loss": Choice(OBJECTIVES, LossConfig)}


def _kinds(section: str, field: FieldInfo) -> list[type[Section]]:
    """The classes that a section of RunConfig may have; none for a plain setting."""
    if section in CHOICES:
        return list(CHOICES[section].registry.usable().values())
    annotation = field.annotation
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []


def parameter_types() -> dict[str, Any]:
    """Every dotted parameter path of RunConfig with its Python type, in order.

    The options of every gate and objective there is are among them; where two have one of the same name and other
    types, the type is the union.
    """
    types: dict[str, Any] = {}
    for section, field in RunConfig.model_fields.items():
        kinds = _kinds(section, field)
        if not kinds:
            types[section] = field.annotation
        for kind in kinds:
            choice = kind.choice if issubclass(kind, Options) else None
            for name, option in kind.model_fields.items():
                path, annotation = f"{section}.{name}", str if name == choice else option.annotation
                known = types.setdefault(path, annotation)
                if known != annotation:
                    types[path] = Union[known, annotation]  # noqa: UP007 - of types known only now
    return types


def readers(path: str) -> list[dict[str, Any]]:
    """What must be chosen for a setting to be read: one choice for each thing that has this option; ``{}`` for all."""
    section, _, name = path.partition(".")
    if section not in CHOICES:
        return [{}]
    choice = CHOICES[section]
    if name in choice.base.model_fields:
        return [{}]
    return [{choice.path: kind.named()} for kind in choice.registry.usable().values() if name in kind.model_fields]


def is_number(annotation: Any) -> bool:
    """Whether a parameter of this type takes a number (text that YAML did not read as one is a mistake)."""
    if annotation in (int, float):
        return True
    if get_origin(annotation) in (Annotated, types.UnionType, Union):
        return any(is_number(arg) for arg in get_args(annotation))
    return False


def is_text(annotation: Any) -> bool:
    """Whether a parameter of this type takes text, or nothing, and no other kind of value."""
    if get_origin(annotation) in (types.UnionType, Union, Literal):
        return all(one is type(None) or isinstance(one, str) or is_text(one) for one in get_args(annotation))
    return annotation is str


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


_ABSENT = object()


def flat(config: RunConfig) -> dict[str, Any]:
    """Every parameter of a config by dotted path, as plain JSON types; options that it does not have are left out."""
    tree = config.model_dump(mode="json")
    result = {}
    for path in parameter_types():
        value: Any = tree
        for part in path.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
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
    """The first problem of a pydantic error, with the likeliest name meant."""
    text = sentence(error)
    unknown = re.fullmatch(r'unknown parameter "(.+)"', text)
    return f"{text}: {suggest(unknown[1], parameter_types())}" if unknown else text


def parse_assignments(pairs: list[str], where: str = "") -> dict[str, Any]:
    """``["model.experts=8", "gate.noisy=false"]`` to values, each read as YAML.

    Raises:
        UserError: for a pair without ``=``, with an unknown path, or one path with two values.
    """
    known = parameter_types()
    texts = frozenset(path for path, annotation in known.items() if is_text(annotation))
    values = assigned(pairs, "KEY=VALUE, for example model.experts=8", where, texts)
    check_paths(values, where)
    return values


def assigned(pairs: Sequence[str], form: str, where: str = "", texts: Collection[str] = frozenset()) -> dict[str, Any]:
    """Words ``PATH=VALUE`` to values by path, each read as YAML.

    Args:
        pairs: the words.
        form: what they look like, for the message, with an example.
        where: what the message begins with.
        texts: paths that take text: images may be called 2024 or on.

    Raises:
        UserError: for a word without ``=``, a value that is not YAML, or one path with two values.
    """
    words: dict[str, str] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f'{where}"{pair}" is not {form}')
        if words.setdefault(path, text) != text:
            raise UserError(f"{where}{path} is given twice, as {words[path]} and as {text}; leave one of them out")
    return {
        path: text
        if path in texts and _AS_WRITTEN.fullmatch(text)
        else read_value(text, f'{where}"{path}={shown.repr(text)[1:-1]}": ')
        for path, text in words.items()
    }


def read_value(text: str, where: str = "") -> Any:
    """What a word stands for in YAML.

    Raises:
        UserError: it stands for nothing; the message begins with `where`.
    """
    try:
        value = _value(text)
    except UserError as error:
        raise UserError(f"{where}{error}") from None
    except _NO_VALUE:
        written = shown.repr(text)[1:-1]
        raise UserError(f"{where}{written} is not a value in YAML; check its brackets and quotes") from None
    if problem := misread(text, value):
        raise UserError(f"{where}{problem}")
    return value


def misread(text: str, value: Any) -> str | None:
    """Why a number is not what it seems: 010 is eight in YAML, and 1:30 ninety."""
    if isinstance(value, int | float) and _OF_ANOTHER_BASE.fullmatch(text):
        return f"{shown.repr(text)[1:-1]} is {value} in YAML; write the number that is meant in its usual form"
    return None


def _value(text: str) -> Any:
    """What a word stands for in YAML. W&B hands a null over as the text None."""
    if text in ("", "None"):
        return None if text else ""
    if len(text) > _LONGEST or ("*" in text and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))):
        raise ValueError("a few aliases of aliases stand for more values than fit into memory")
    value = yaml.safe_load(text)
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise UserError(f"{shown.repr(text)[1:-1]} is too large for a whole number; write a smaller one")
    return text if isinstance(value, dt.date) else value
