"""`moe probe`: options and printing. No logic of its own; heavy imports happen inside the command."""

import json
from pathlib import Path
from typing import Annotated

import typer

from moe.errors import UserError
from moe.importing import importing
from sweeps.console import Json, out, print_json


def probe_command(
    run: Annotated[str | None, typer.Option("--run", help="A run's id, or ENTITY/PROJECT/ID in W&B.")] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Every run of a sweep, then the cross-run probes.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="FILE.py:FACTORY", help="A model trained elsewhere; needs --images."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE.safetensors", help="For --model: its state_dict.")
    ] = None,
    probe: Annotated[list[str] | None, typer.Option("--probe", help="Only this probe; repeatable.")] = None,
    images: Annotated[list[str] | None, typer.Option("--images", help="Images to probe with; repeatable.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PROBE.OPTION=VALUE", help="An option of a probe; repeatable. See --list."),
    ] = None,
    rdm: Annotated[
        list[Path] | None,
        typer.Option("--rdm", metavar="FILE", help="Dissimilarities to compare experts with (.npy, .csv); repeatable."),
    ] = None,
    epochs: Annotated[bool, typer.Option("--epochs", help="Probe the checkpoints kept from training too.")] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Beside every number: untrained model, shared features, pixels, ...")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the probes and their options.")] = False,
    as_json: Json = False,
) -> None:
    """Ask each expert what it encodes; tables and figures go into the run, on disk and in the tracker."""
    if show:
        _list_probes(as_json)
        return
    with importing():
        from probes import probing

    if sum(one is not None for one in (run, sweep, model)) != 1:
        raise UserError("say what to probe: --run ID, --sweep NAME or --model FILE.py:FACTORY, one of them")
    if model is None and weights is not None:
        raise UserError("--weights is for --model FILE.py:FACTORY; a run has its own")
    if model is not None and (epochs or not images):
        raise UserError(
            "--epochs is for runs; a model that was trained elsewhere is one"
            if epochs
            else "say on what images to probe the model: --images NAME; `moe data list` shows those at hand"
        )
    report = (lambda _line: None) if as_json else out.print
    if rdm:
        assignments = [*(assignments or []), f"geometry.rdm={json.dumps([str(path.absolute()) for path in rdm])}"]
    if model is not None:
        results = probing.probe_model(model, weights, probe, images or [], report, assignments, baselines=baselines)
    elif run is not None:
        results = probing.probe_run(run, probe, images, report, assignments, epochs=epochs, baselines=baselines)
    else:
        results = probing.probe_sweep(
            str(sweep), probe, images, report, assignments, epochs=epochs, baselines=baselines
        )
    if as_json:
        print_json(results)


def _list_probes(as_json: bool) -> None:
    with importing():
        from probes.registry import listing

    listed = listing()
    if as_json:
        print_json(listed)
        return
    for shown in listed["probes"]:
        out.print(shown["about"])
        for option in shown["options"]:
            out.print(f"  {option['name']}={option['default']}  {option['about']}")
    for name, reason in listed["broken"].items():
        out.print(f"{name}: cannot be loaded: {reason}")
