"""`moe runs ...`: the runs of this machine. No logic of its own; heavy imports happen inside the commands."""

from typing import Annotated

import typer
from rich.table import Table

from moe.wording import counted
from sweeps.console import Json, err, out, print_json, print_table
from sweeps.runs.endings import FAILURE

app = typer.Typer(help="Finished and unfinished runs on this machine.", no_args_is_help=True)


@app.command("list")
def runs_list(
    where: Annotated[str | None, typer.Option(help="Which runs: model.experts=8 and val/loss<5")] = None,
    as_json: Json = False,
) -> None:
    """List every run on this machine, or those that meet a condition."""
    from sweeps.views.listing import listing

    rows = listing(where=where)
    if as_json:
        print_json({"runs": rows})
        return
    table = Table("run", "data", "E", "k", "seed", "state", "epochs", "val loss", "probes")
    for row in rows:
        cells = [
            "?" if row[key] is None else str(row[key])
            for key in ("id", "data", "experts", "top_k", "seed", "state", "epochs")
        ]
        loss = f"{row['val_loss']:.3f}" if row["val_loss"] is not None else ""
        table.add_row(*cells, loss, " ".join(row["probes"]))
    print_table(table)


@app.command("show")
def runs_show(
    run_id: Annotated[str, typer.Argument(help="A run's id or its beginning.")], as_json: Json = False
) -> None:
    """Show one run: configuration, state, last metrics, probes, files."""
    from sweeps.views.listing import details

    shown = details(run_id)
    if as_json:
        print_json(shown)
        return
    for section, values in shown.items():
        out.print(section, style="bold")
        for key, value in values.items():
            out.print(f"  {key}: {value}")


@app.command("sync")
def runs_sync(
    run_ids: Annotated[list[str] | None, typer.Argument(help="Runs; default: all that have offline pieces.")] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Remove the pieces that the server has confirmed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what waits and upload nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Upload offline runs to W&B, in order; what did not get through is tried again next time."""
    from sweeps.runs.store import RunStore
    from sweeps.tracking import sync

    store = RunStore()
    runs = [store.find(run_id) for run_id in run_ids] if run_ids else sync.waiting(store)
    left = sync.pieces(runs) if dry_run else sync.sync(runs, err.print, clean=clean, ask=bool(run_ids))
    if as_json:
        print_json({"runs": len(runs), "left": [vars(each) for each in left]})
    else:
        out.print(f"{len(runs) - len(left)} of {len(runs)} runs are on the server" if runs else "no run waits")
        for each in left:  # why was said
            out.print(f"  {each.run}: {counted(each.segments, 'offline piece')}")
    if left and not dry_run:
        raise typer.Exit(FAILURE)
