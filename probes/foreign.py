"""From `FILE.py:FACTORY` on a command line to a model that probes can ask."""

import hashlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from moe.errors import UserError, suggest, unknown
from moe.files import content
from moe.foreign.base import MODELS, Factory
from moe.foreign.checked import Foreign
from moe.foreign.trouble import theirs
from moe.model import drawn_from
from moe.wording import reason

_LONGEST = 40  # characters of a factory's name in the model's


def load_foreign(reference: str, weights: Path | None = None) -> tuple[Foreign, str]:
    """A model that this project did not train, in eval mode on the CPU.

    The file is run as a program of the user's, as it is named on the command line. Weights are data: nothing is
    unpickled. What a factory draws at random it draws alike each time.

    Args:
        reference: ``FILE.py:FACTORY``, whose call without arguments gives the model; or a name among the entry points
            `moe.models` of installed packages.
        weights: a safetensors file with the model's state_dict; None: the factory has taken care of them.

    Returns:
        The model, and a name for it: the factory's, and a checksum of code and weights.

    Raises:
        UserError: no such file, factory or weights, they do not fit, or the model breaks a guarantee.
    """
    factory, name, source = _factory(reference)
    with theirs(reference), drawn_from(0):
        model: Any = factory()
    if not isinstance(model, nn.Module):
        raise UserError(f"{reference} gives a {type(model).__name__}; needed is a torch.nn.Module")
    if weights is not None:
        _fill(model, weights, reference)
    foreign = Foreign(model.eval().requires_grad_(requires_grad=False), reference).eval()
    digest = hashlib.sha256(source + name.encode() + foreign.digest.encode()).hexdigest()
    return foreign, f"{re.sub(r'[^A-Za-z0-9_]', '_', name)[:_LONGEST]}-{digest[:8]}"


def _factory(reference: str) -> tuple[Factory, str, bytes]:
    """What makes the model, its name and its file's content."""
    file, _, name = reference.rpartition(":")
    if not file:
        if reference.endswith(".py") and Path(reference).is_file():
            found = [key for key, value in vars(_imported(Path(reference))).items() if _own(key, value, reference)]
            raise UserError(f"say what in {reference} makes the model, {reference}:FACTORY; {suggest('', found)}")
        if reference in MODELS:
            return MODELS[reference], reference, b""
        if len(MODELS):
            raise unknown("model", reference, MODELS)
        raise UserError(f'"{reference}" is no model: say FILE.py:FACTORY, a function in a file that makes it')
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"{file} does not exist, or is no file; --model is FILE.py:FACTORY")
    module = _imported(path)
    if not callable(getattr(module, name, None)):
        known = [key for key, value in vars(module).items() if _own(key, value, file)]
        raise UserError(f'{file} has no function "{name}": {suggest(name, known)}')
    return getattr(module, name), name, content(path)


def _own(name: str, value: Any, file: str) -> bool:
    """Whether something in a module is a function or class that was written there."""
    return callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == _module_name(Path(file))


def _module_name(path: Path) -> str:
    return f"_foreign_{path.stem}"


def _imported(path: Path) -> ModuleType:
    """A file of the user's, run; it finds modules beside it, now and, after all others, later."""
    spec = importlib.util.spec_from_file_location(_module_name(path), path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; --model is FILE.py:FACTORY")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with theirs(str(path)):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        sys.path.append(folder)
    return module


def _fill(model: nn.Module, weights: Path, reference: str) -> None:
    if not weights.is_file():
        raise UserError(f"{weights} does not exist, or is no file")
    try:
        load_model(model, weights)
    except SafetensorError as error:
        raise UserError(
            f"{weights} is no safetensors file ({reason(error)}); "
            "safetensors.torch.save_file(model.state_dict(), FILE) writes one"
        ) from error
    except (RuntimeError, ValueError, LookupError, TypeError, OSError) as error:
        said = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise UserError(f"{weights} does not fit the model of {reference}: {said[:300]}") from error
