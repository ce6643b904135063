"""What settings are made of: frozen groups that refuse names they do not know. Imports no torch.

Later versions add settings. `Later` marks one and says which value means "as before": with it a run keeps the
id that it had before the setting existed.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from moe.errors import UserError
from moe.registry import Registry, load

shown = reprlib.Repr()  # a value in a message, which is one sentence
shown.maxstring = shown.maxother = shown.maxlong = 200
shown.maxlist = shown.maxtuple = shown.maxdict = 20

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError(f"needs 0 < low <= high, not {list(pair)}")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


@dataclass(frozen=True)
class Later:
    """Marks a setting that a later version added: ``blur_kernel: Annotated[int, Later(3)] = 3``.

    Attributes:
        as_before: the value with which a run is what it was before the setting existed. It stays what it is, also
            when the setting's default changes.
    """

    as_before: Any


class Section(BaseModel):
    """A frozen group of settings that refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def hashed(self) -> dict[str, Any]:
        """What of this section defines a run's identity, as plain JSON types.

        Everything, but for settings marked `Later` while they mean "as before".
        """
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            if any(isinstance(mark, Later) and getattr(self, name) == mark.as_before for mark in field.metadata):
                del values[name]
        return values


class Options(Section):
    """The settings of something that is chosen by name, such as a gate: its fields are that thing's options.

    One class for each thing, registered under its name. It stands apart from the thing itself, so that a sweep of
    thousands of cells is planned without importing torch.

    Guarantees
    ----------
    Validation. An option is checked by the class of the thing chosen. An option that only other things of the kind
    have is left out, for it does nothing here; one that none has is refused.

    Identity. Only the options of the thing chosen count, see `hashed`.

    Attributes:
        section: where the options stand among a run's settings, e.g. ``gate``.
        choice: the field that holds the name, e.g. ``kind``.
        implementation: ``package.module:Class`` of the thing; imported when a model is built.
        ignored: dotted paths of settings elsewhere that this thing does not read, so that they make no other run.
        needs_labels: whether it can only be trained on images that all have a class, out of the same classes in
            training and in validation; a run on others is refused before it starts.
    """

    section: ClassVar[str]
    choice: ClassVar[str]
    implementation: ClassVar[str]
    ignored: ClassVar[frozenset[str]] = frozenset()
    needs_labels: ClassVar[bool] = False

    @classmethod
    def named(cls) -> str:
        """The name under which it is registered."""
        return str(cls.model_fields[cls.choice].default)

    @classmethod
    def offered(cls) -> dict[str, Any]:
        """Every option with its pydantic field; the name that chooses it is none."""
        return {name: field for name, field in cls.model_fields.items() if name != cls.choice}

    def idle(self) -> dict[str, str]:
        """Its own options that it does not read as the others stand, and because of what: ``loss.x_weight=0``."""
        return {}

    @classmethod
    def load(cls) -> Any:
        """The class that implements it."""
        return load(cls.implementation)


def registered(base: type[Options], loaded: Any, name: str) -> Any:
    """What a registry of options takes in.

    Raises:
        UserError: it is not of this kind or not complete.
    """
    if not (isinstance(loaded, type) and issubclass(loaded, base)) or loaded is base:
        raise UserError(f"it is no subclass of {base.__module__}.{base.__name__}")
    missing = [field for field, info in loaded.model_fields.items() if info.is_required()]
    if missing:
        raise UserError(f"its field {missing[0]} has no default")
    if loaded.named() != name:
        raise UserError(f'its {base.choice} is "{loaded.named()}", not the name of its entry point')
    if not hasattr(loaded, "implementation"):
        raise UserError('it does not say where its class is (implementation = "package.module:Class")')
    return loaded


def chosen(value: Any, registry: Registry[Any], base: type[Options], default: str) -> Any:
    """Options of the thing that `value` names, from a mapping; options themselves are returned as they are.

    Raises:
        ValueError: the name or an option is unknown, or a value does not fit; one sentence.
    """
    if not isinstance(value, Mapping):
        return value
    name = value.get(base.choice, default)
    if not isinstance(name, str):
        raise ValueError(f"{base.section}.{base.choice}={name!r}: input should be a valid string")  # noqa: TRY004
    try:
        kind = registry[name]
    except UserError as error:
        raise ValueError(f"{base.section}.{base.choice}: {error}") from None
    elsewhere = {option for other in registry.usable().values() for option in other.offered()}
    idle = elsewhere - set(kind.model_fields)
    try:
        return kind.model_validate({key: given for key, given in value.items() if key not in idle})
    except ValidationError as error:
        raise ValueError(sentence(error, base.section)) from None


def sentence(error: ValidationError, section: str = "") -> str:
    """The first problem of a pydantic error, in one sentence that begins with the setting's dotted path."""
    first, *others = error.errors()
    message = first["msg"].removeprefix("Value error, ")
    if place := next((n for n, part in enumerate(first["loc"]) if "[" in str(part)), None):  # one kind of several
        rest = [each["msg"] for each in others if each["loc"][:place] == first["loc"][:place]]
        message = " or ".join([message, *(said.removeprefix("Input should be ") for said in rest)])
        first["loc"] = first["loc"][:place]
    path = ".".join(str(part) for part in ([section] if section else []) + list(first["loc"]))
    if first["type"] == "model_type":
        return f"{path}={shown.repr(first['input'])}: its settings stand below it by name, as in model: {{experts: 8}}"
    if first["type"] == "extra_forbidden":
        return f'unknown parameter "{path}"'
    message = (message[:1].lower() + message[1:]).replace("a valid tuple", "a list, as [a, b]")
    if first["type"] == "value_error" and path.count(".") == 0 and path != "seed":
        return message  # raised by a section as a whole; it names its parameters itself
    return f"{path}={shown.repr(first['input'])}: {message}"
