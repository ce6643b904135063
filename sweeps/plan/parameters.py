"""One parameter of a sweep: what W&B lets a file say about it, and the checks."""

import json
import math
import sys
from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args, get_origin

import yaml

from moe.config import check_paths, from_flat, is_number, parameter_types, readers
from moe.errors import UserError, suggest
from moe.section import shown
from sweeps.plan.distributions import DISTRIBUTIONS, LARGEST_EXPONENT, RANGE, AxisKind, Parameter
from sweeps.plan.source import Keys, Source

KEYS = ("value", "values", "probabilities", "distribution", *RANGE, "q", "mu", "sigma", "a", "b")
_LARGEST = 3.4e38  # what torch computes with
_SHOWN = 200  # characters of a value in a message
_MOST_VALUES = 10_000  # of a list: more than a sweep may have runs


def value_problem(path: str, value: Any) -> str | None:
    """What is wrong with one value of a parameter, and the likely fix; None if it fits.

    Constraints between parameters (top_k <= experts) are left to the expanded runs.
    """
    if problem := _kind_problem(path, value):
        return problem
    problems = [_own_problem(path, value, chosen) for chosen in readers(path)]
    return None if None in problems else problems[0]


def _own_problem(path: str, value: Any, chosen: dict[str, Any]) -> str | None:
    """What is wrong with a value where these choices are made."""
    try:
        from_flat(chosen | {path: value})
    except UserError as error:
        if str(error).startswith((f"{path}={value!r}:", f"{path}:", f"{path}.")):  # its own, not a pair's
            return str(error)
    return None


def _kind_problem(path: str, value: Any) -> str | None:
    """Mistakes of kind that pydantic would let pass or explain less well."""
    annotation = parameter_types()[path]
    for number in value if isinstance(value, list) else ():
        if problem := _size_problem(path, number):
            return problem
    if is_number(annotation):
        return _number_problem(path, value)
    if annotation is bool:
        if not isinstance(value, bool):
            return f"{path} takes true or false, not {as_yaml(value)}; write true or false without quotes"
    elif isinstance(value, bool):
        return f"{path}: YAML reads a bare yes, no, on, off, true or false as a truth value; put it in quotes"
    elif isinstance(value, int | float) and str in (annotation, *get_args(annotation)):
        return f"{path}: YAML reads {value} as a number; put it in quotes"
    return None


def _number_problem(path: str, value: Any) -> str | None:
    if isinstance(value, str):
        return _text_problem(path, value)
    if isinstance(value, bool):
        return f"{path} takes a number, not {as_yaml(value)}; write the number"
    return _size_problem(path, value)


def _size_problem(path: str, value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}={value} is not a finite number; write one"
    if isinstance(value, int | float) and abs(value) > _LARGEST:
        return f"{path}={shown.repr(value)} is more than a float of 32 bits holds; write a smaller number"
    return None


def flatten(tree: Any, source: Source, at: Keys, prefix: str = "") -> Iterator[tuple[str, Keys, Any]]:
    """Every parameter with its dotted path and place in the file; W&B's nested groups are opened."""
    if not isinstance(tree, dict):
        raise source.error(at, "parameters must be a mapping; write for example seed: {values: [0, 1]}")
    for key, entry in tree.items():
        if isinstance(entry, dict) and "parameters" in entry:
            for other in entry:
                if other != "parameters":
                    raise source.error(
                        (*at, key, other), f'"{other}" stands beside parameters; move it inside or remove it'
                    )
            yield from flatten(entry["parameters"], source, (*at, key, "parameters"), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", (*at, key), entry


def read_parameter(path: str, at: Keys, entry: Any, method: str, source: Source) -> Parameter:
    """One parameter of a sweep file, checked.

    Args:
        path: its dotted path.
        at: its keys in the file.
        entry: what the file says about it.
        method: the sweep's method.
        source: the file, for messages.

    Raises:
        UserError: for an unknown path, keys that do not go together, values that the setting does not take.
    """
    members = [known for known in parameter_types() if known.startswith(f"{path}.")]
    if members:
        named = [known for known in members if isinstance(entry, dict) and known[len(path) + 1 :] in entry]
        example = (named or members)[0]
        raise source.error(at, f'"{path}" is a group of parameters; write {example}: {{value: ..}} with the dot')
    check_paths({path: entry}, source.where(at))
    if entry is None:
        raise source.error(at, f"{path} is empty; write {path}: {{value: ..}}")
    if not isinstance(entry, dict):
        key = "values" if isinstance(entry, list) else "value"
        raise source.error(
            at, f"{path}: {as_yaml(entry)} stands without {key}:; write {path}: {{{key}: {as_yaml(entry)}}}"
        )
    for key in entry:
        if key not in KEYS:
            raise source.error((*at, key), f'{path}: unknown key "{key}"; {suggest(key, KEYS)}')
    distribution = _distribution(path, at, entry, source)
    if method == "grid":
        _check_grid(path, at, entry, distribution, source)
    _check_keys(path, at, entry, distribution, source)
    if distribution == "constant":
        _check_value(path, entry["value"], (*at, "value"), source)
        return Parameter(distribution, (entry["value"],), at=at)
    if DISTRIBUTIONS[distribution].axis is AxisKind.LIST:
        return _categorical(path, at, entry, distribution, source)
    parameter = _continuous(path, at, entry, distribution, source)
    return _listed(path, parameter, source) if method == "grid" else parameter


def _listed(path: str, parameter: Parameter, source: Source) -> Parameter:
    """Whole numbers between two bounds as the values that a grid tries."""
    low, high = (int(end) for end in parameter.support)
    if high - low >= _MOST_VALUES:
        problem = f"{path}: {high - low + 1:,} whole numbers lie between {low} and {high}; a grid tries them all"
        raise source.error(parameter.at, f"{problem}, so give {_MOST_VALUES:,} at most")
    return Parameter("categorical", tuple(range(low, high + 1)), at=parameter.at)


def _distribution(path: str, at: Keys, entry: dict[str, Any], source: Source) -> str:
    """The distribution named, else the one W&B takes for these keys."""
    if "distribution" in entry:
        name = str(entry["distribution"])
        if name not in DISTRIBUTIONS:
            hint = suggest(name, DISTRIBUTIONS)
            raise source.error((*at, "distribution"), f'{path}: unknown distribution "{name}"; {hint}')
        return name
    implied = {"probabilities": "categorical_w_probabilities", "values": "categorical", "value": "constant"}
    for key, name in implied.items():
        if key in entry:
            return name
    if "min" in entry or "max" in entry:
        whole = all(isinstance(entry.get(key), int) for key in RANGE)
        return "int_uniform" if whole else "uniform"
    raise source.error(at, f"{path} has no values; write {path}: {{values: [..]}}")


def _check_grid(path: str, at: Keys, entry: dict[str, Any], distribution: str, source: Source) -> None:
    if "probabilities" in entry:
        problem = f"{path}: grid tries every value once; remove probabilities or write method: random"
        raise source.error((*at, "probabilities"), problem)
    if distribution not in ("constant", "categorical", "int_uniform"):
        needs = "grid needs values: [...], or whole min and max"
        raise source.error(at, f"{path}: {needs}; {distribution} works with method: random")


def _check_keys(path: str, at: Keys, entry: dict[str, Any], distribution: str, source: Source) -> None:
    kind = DISTRIBUTIONS[distribution]
    required, optional = kind.required, kind.optional
    for key in entry:
        if key not in (*required, *optional, "distribution"):
            other = f"distribution: {distribution}" if "distribution" in entry else " and ".join(required)
            raise source.error((*at, key), f"{path}: {key} does not go with {other}; remove one of them")
    for key in required:
        if key not in entry:
            raise source.error(at, f"{path}: {key} is missing; add {key}, which {distribution} needs")


def _categorical(path: str, at: Keys, entry: dict[str, Any], distribution: str, source: Source) -> Parameter:
    values = entry["values"]
    if not isinstance(values, list):
        raise source.error((*at, "values"), f"{path}: values needs a list; write values: [{as_yaml(values)}]")
    if not values:
        raise source.error((*at, "values"), f"{path}: values is empty; list at least one")
    if len(values) > _MOST_VALUES:
        problem = f"{path}: {len(values):,} values are listed; list {_MOST_VALUES:,} at most, or give min and max"
        raise source.error((*at, "values"), problem)
    for index, value in enumerate(values):
        _check_value(path, value, (*at, "values", str(index)), source)
    if "probabilities" not in entry:
        return Parameter(distribution, tuple(values), at=at)
    probabilities = _check_probabilities(path, (*at, "probabilities"), entry["probabilities"], len(values), source)
    return Parameter(distribution, tuple(values), probabilities, at=at)


def _check_probabilities(path: str, at: Keys, given: Any, count: int, source: Source) -> tuple[float, ...]:
    if not (isinstance(given, list) and all(is_finite(item) and item >= 0 for item in given)):
        raise source.error(at, f"{path}: probabilities needs a list of numbers from 0 to 1; write one for each value")
    if len(given) != count:
        raise source.error(at, f"{path}: {len(given)} probabilities for {count} values; write one for each value")
    if not math.isclose(total := math.fsum(given), 1, abs_tol=1e-6):
        raise source.error(at, f"{path}: the probabilities sum to {total:g}; make them sum to 1")
    return tuple(item / total for item in given)


def _continuous(path: str, at: Keys, entry: dict[str, Any], distribution: str, source: Source) -> Parameter:
    numbers = {key: value for key, value in entry.items() if key != "distribution"}
    for key, value in numbers.items():
        if isinstance(value, str):
            raise source.error((*at, key), _text_problem(path, value))
        if not is_finite(value):
            raise source.error((*at, key), f"{path}: {key} needs a number, not {as_yaml(value)}; write the number")
    annotation = parameter_types()[path]
    if not is_number(annotation):
        raise source.error(at, f"{path} takes no numbers, so no {distribution}; write values: [..]")
    kind = DISTRIBUTIONS[distribution]
    for key in RANGE:
        if key in numbers and not (kind.exponents or kind.quantised):  # of those no value need be a bound
            _check_value(path, numbers[key], (*at, key), source)
    _check_shape(path, at, numbers, distribution, source)
    _check_wholeness(path, at, entry, distribution, source)
    if _takes_whole(annotation) and float(numbers.get("q", 1)).is_integer() and "q" in numbers:
        numbers["q"] = int(numbers["q"])
    parameter = Parameter(distribution, at=at, **numbers)
    _check_support(path, parameter, source)
    return parameter


def _check_shape(path: str, at: Keys, numbers: dict[str, float], distribution: str, source: Source) -> None:
    low, high = (numbers.get(key, 0) for key in RANGE)
    if low > high:
        raise source.error((*at, "min"), f"{path}: min {low} is above max {high}; swap them")
    kind = DISTRIBUTIONS[distribution]
    if kind.logarithmic and not kind.exponents and low <= 0:
        raise source.error((*at, "min"), f"{path}: {distribution} needs min above 0, not {low}; write min: 1.0e-6, say")
    for key in RANGE:
        if kind.exponents and abs(numbers[key]) > LARGEST_EXPONENT:
            problem = f"{path}: {key} {numbers[key]} is no exponent of e that a number can have"
            raise source.error((*at, key), f"{problem}; {_other_kind(distribution)}")
    if numbers.get("sigma", 0) < 0:
        raise source.error((*at, "sigma"), f"{path}: sigma {numbers['sigma']} is negative; write a number from 0")
    for key in ("a", "b"):
        if numbers.get(key, 1) <= 0:
            raise source.error((*at, key), f"{path}: {key} {numbers[key]} is not above 0; write 1.0, say")
    if (q := numbers.get("q", 1)) <= 0:
        raise source.error((*at, "q"), f"{path}: q {q} is not above 0; write the step between values")


def _other_kind(distribution: str) -> str:
    return f"{distribution} takes exponents of e, {distribution}_values takes the values themselves"


def _check_support(path: str, parameter: Parameter, source: Source) -> None:
    """What only the finished parameter shows: that it has values, and that the outermost fit if they are no bounds."""
    kind, (low, high), (first, last) = parameter.kind, parameter.support, parameter.steps
    if kind.quantised and any(math.isfinite(end) and not math.isfinite(end / parameter.q) for end in (low, high)):
        problem = f"{path}: q {parameter.q} is too small a step between {low:g} and {high:g}"
        raise source.error((*parameter.at, "q"), f"{problem}; make q larger")
    if kind.quantised and first > last:
        problem = f"{path}: no multiple of q {parameter.q} lies between {low:g} and {high:g}; make q smaller"
        raise source.error((*parameter.at, "q"), problem)
    if kind.exponents or (kind.quantised and parameter.min is not None):
        ends = ("max", "min") if kind.inverse else RANGE
        for key, value in zip(ends, (low, high), strict=True):
            if wrong := value_problem(path, parameter.on_grid(value)):
                other = f"; {_other_kind(parameter.distribution)}" if kind.exponents else ""
                raise source.error((*parameter.at, key), f"{wrong}{other}")


def _check_wholeness(path: str, at: Keys, entry: dict[str, Any], distribution: str, source: Source) -> None:
    """Whole-number settings need whole draws; fractional ones must not get them by accident."""
    kind = DISTRIBUTIONS[distribution]
    whole = kind.whole or (kind.quantised and float(entry.get("q", 1)).is_integer())
    if _takes_whole(parameter_types()[path]):
        if not whole:
            fix = "write whole min and max with distribution: int_uniform"
            raise source.error(at, f"{path} takes whole numbers, which {distribution} does not give; {fix}")
    elif kind.whole:
        if not all(isinstance(entry[key], int) for key in RANGE):
            raise source.error(at, f"{path}: int_uniform needs whole min and max; write distribution: uniform")
        if "distribution" not in entry:
            low, high = (f"{key}: {float(entry[key])}" for key in RANGE)
            raise source.error(at, f"{path}: whole min and max would give whole numbers only; write {{{low}, {high}}}")


def _check_value(path: str, value: Any, at: Keys, source: Source) -> None:
    if value is None and type(None) not in get_args(parameter_types()[path]):
        raise source.error(at, f"{path} has an empty value; write one")
    if problem := value_problem(path, value):
        raise source.error(at, problem)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that one can calculate with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # neither nan nor inf, nor a whole number that is too large for a float


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1; 3.0 is one, too."""
    return is_finite(value) and value >= 1 and float(value).is_integer()


def _takes_whole(annotation: Any) -> bool:
    return annotation is int or (get_origin(annotation) is UnionType and int in get_args(annotation))


def as_yaml(value: Any) -> str:
    """A value as one would write it in a sweep file, on one line."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 2]}.."


def _text_problem(path: str, text: str) -> str:
    number = as_number(path, text)
    if isinstance(number, str):
        return f"{path} takes a number, not the text {as_yaml(text)}; write the number"
    mantissa, exponent, power = text.strip().lower().partition("e")
    if not exponent and _is_number_in_yaml(text):
        return f'{path}: "{text}" in quotes is text; write {text} without them'
    if not exponent:
        return f"{path}: YAML reads {text} as text, not as a number; write {number}"
    # YAML 1.1 knows a float by its dot and by the sign of its exponent
    dotted = mantissa if "." in mantissa else f"{mantissa}.0"
    signed = power if power[0] in "+-" else f"+{power}"
    written = str(number) if isinstance(number, int) else f"{dotted}e{signed}"
    return f"{path}: YAML reads {text} as text, not as a number; write {written}"


def _is_number_in_yaml(text: str) -> bool:
    return not isinstance(yaml.safe_load(text), str)


def as_number(path: str, value: Any) -> Any:
    """Text that spells a number as that number, if the parameter takes one; anything else as it came."""
    annotation = parameter_types()[path]
    if not (isinstance(value, str) and is_number(annotation)):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return int(number) if _takes_whole(annotation) and number.is_integer() else number
