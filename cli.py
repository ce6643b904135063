"""The `moe` command: one sub-app per package. No logic of its own; heavy imports happen inside the commands."""

import contextlib
import io
import os
import sys
import traceback
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from moe.errors import UserError
from moe.importing import importing, leaving
from moe.wording import reason
from probes.commands import probe_command
from sweeps.commands import app as sweep_app
from sweeps.console import Json, Set, SweepName, err, failure, out, print_json, print_table, progress_bar, show_notices
from sweeps.run_commands import app as runs_app
from sweeps.runs.endings import FAILURE, NO_ROOM, OUT_OF_MEMORY, USER_MISTAKE, LackOfMemoryError, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # read by Lightning as it is imported

app = typer.Typer(
    help="Sweeps of sparse Mixture-of-Experts vision models, and probes that ask each expert what it encodes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Images: prepare known datasets, import your own.", no_args_is_help=True)
app.add_typer(sweep_app, name="sweep")
app.add_typer(runs_app, name="runs")
app.add_typer(data_app, name="data")


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["MOE_DEBUG"] = "1"
    show_notices()
    for name in _RANKS:
        try:
            int(os.environ.get(name, "0"))
        except ValueError:
            raise UserError(f"{name}={os.environ[name]} is no number of a process; unset {name}") from None
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the folder that this was started in is gone; start it in another one") from None
    for name in ("MOE_HOME", "MOE_DATA"):
        given = os.environ.get(name, ".")
        try:
            place = Path(given).expanduser()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                place.stat()
            there = next(part for part in (place, *place.absolute().parents) if os.path.lexists(part))
        except (OSError, RuntimeError, ValueError) as error:  # too long, say, or the home of nobody
            raise UserError(f"{name}={given} cannot be used: {reason(error)}; name a folder") from None
        if there.is_symlink() and not there.exists():
            leads = f"{there} is a link to {there.readlink()}, which is not there"
            raise UserError(f"{name}={place}: {leads}; mount that disk, or name another folder")
        if not there.is_dir():
            raise UserError(
                f"{name}={place}{'' if there == place else f': {there}'} is a file, not a folder; name a folder"
            )


# --- runs -----------------------------------------------------------------------------------------------------------


@app.command(
    "train",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
)
def train_command(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="RunConfig as YAML or JSON.")] = None,
    assignments: Set = None,
    show: Annotated[
        str | None, typer.Option("--list", metavar="KIND", help="List gates, objectives or losses, and their options.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train one run; parameters also as --model.experts=8, the way W&B passes them."""
    from sweeps.agents.worker import follow_stdin

    if show:
        _list_choices(show, as_json)
        return

    if os.environ.pop("MOE_FOLLOW_STDIN", ""):
        follow_stdin()
    _train(config, [*(assignments or []), *_flags(context.args)])


def _list_choices(kind: str, as_json: bool) -> None:
    from moe.choices import listing

    listed = listing(kind)
    if as_json:
        print_json(listed)
        return
    for shown in listed[kind]:
        out.print(f"{shown['name']}: {shown['about']}")
        for option in shown["options"]:
            out.print(f"  {option['name']}={option['default']}  {option['about']}")
    for name, why in listed["broken"].items():
        out.print(f"{name}: cannot be loaded: {why}")


@app.command("worker", hidden=True)
def worker_command() -> None:
    """Wait on standard input for a run to train; agents start it."""
    from sweeps.agents.worker import wait_for_order

    if config := wait_for_order():
        _train(config, [])


def _train(config: Path | None, assignments: list[str]) -> None:
    from sweeps.plan.config_files import run_config

    with importing():
        from sweeps.training.trial import train

    run = run_config(config, assignments)
    for path, why in run.unread([pair.partition("=")[0] for pair in assignments]).items():
        err.print(f"{path} does not count with {why}")
    train(run, group=os.environ.get("MOE_SWEEP"), report=out.print)


def _flags(arguments: "Sequence[str]") -> list[str]:
    """`--model.experts=8` as `model.experts=8`."""
    for argument in arguments:
        if not argument.startswith("--") or "=" not in argument:
            raise UserError(f'"{argument}" is not understood; parameters look like --model.experts=8')
    return [argument.removeprefix("--") for argument in arguments]


# --- probes and comparison ------------------------------------------------------------------------------------------


app.command("probe")(probe_command)


@app.command("compare")
def compare_command(
    sweeps: Annotated[list[str], typer.Argument(metavar="SWEEP...", help="Names of launched sweeps.")],
    columns: Annotated[
        str | None, typer.Option(help='Which numbers: names or keys, with commas between; "all".')
    ] = None,
    sort: Annotated[str | None, typer.Option(help="What to sort by; -NAME for the largest first.")] = None,
    where: Annotated[str | None, typer.Option("--filter", help="Which cells: model.experts=8 and val/loss<5")] = None,
    html: Annotated[Path | None, typer.Option(hidden=True, help="As moe report, of the first sweep.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the table as LaTeX.")] = None,
    as_json: Json = False,
) -> None:
    """Compare runs grouped by what was swept, mean and sd over seeds; of several sweeps also how they differ."""
    from sweeps.queue.opening import open_sweep
    from sweeps.views import arrange, compare, versus

    found = [compare.compare(open_sweep(name)) for name in sweeps]
    whole, effects = versus.side_by_side(found) if len(found) > 1 else (found[0], [])
    comparison = arrange.arranged(whole, columns, sort, where)
    effects = [effect for effect in effects if effect.column in comparison.columns]
    if as_json:
        print_json(comparison.as_json() | ({"differences": versus.as_json(effects)} if len(found) > 1 else {}))
    else:
        fits = columns is not None or not out.is_terminal
        print_table(compare.terminal_table(comparison if fits else arrange.fitting(comparison, out.width)))
        if len(found) > 1:
            print_table(versus.effects_table(effects, found[0].name))
    for path, render in ((csv, compare.to_csv), (latex, compare.to_latex)):
        if path is not None:
            _write(path, render(comparison))
    if html is not None:
        report_command(sweeps[0], html)


@app.command("report")
def report_command(
    sweep: SweepName,
    html: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for the paper's figures (PDF, SVG, PNG) and tables (LaTeX), with CSV.")
    ] = None,
) -> None:
    """Write a sweep as one page that needs nothing else, and the paper's figures and tables of it as files."""
    if html is None and figures is None:
        raise UserError(
            "say what to write: --html FILE for the page, --figures FOLDER for the paper's figures, or both"
        )
    from probes.paper import making
    from sweeps.queue.opening import open_sweep
    from sweeps.views import compare
    from sweeps.views.report import page

    opened = open_sweep(sweep)
    pieces = making.paper_pieces(opened)
    if figures is not None and not pieces:
        raise UserError(f"no run of sweep {sweep} is finished; `moe sweep resume {quote(sweep)}` goes on")
    if figures is not None:
        with _writing(figures):
            count = len(list(making.write_pieces(pieces, figures)))
        for piece in pieces:
            for gap in piece.gaps:
                err.print(f"{piece.title}: {gap.text}: {gap.command}")
        err.print(f"wrote {count} files into {figures}")
    if html is not None:
        _write(html, page.to_html(compare.compare(opened), making.plates(pieces)))


@contextlib.contextmanager
def _writing(path: Path) -> "Iterator[None]":
    """What goes wrong while a file is written is one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be written: {error.strerror}; name another place") from None


def _write(path: Path, text: str) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    err.print(f"wrote {path}")


# --- data -----------------------------------------------------------------------------------------------------------


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """List known datasets and the images prepared on this machine."""
    from moe.data.datasets import DATASETS
    from moe.data.store import data_root, open_all

    opened, damaged = open_all()
    stores = [store.manifest for store in opened]
    for one in damaged:
        err.print(f"{one.name}: {one.problem}")
    if as_json:
        print_json({"datasets": {name: dataset.about for name, dataset in DATASETS.usable().items()},
               "stores": [manifest.model_dump(mode="json") for manifest in stores],
               "damaged": {one.name: one.problem for one in damaged}})  # fmt: skip
        return
    out.print(Text("known datasets", "bold"), "(moe data prepare NAME)")
    for name, dataset in DATASETS.usable().items():
        out.print(f"  {name}: {dataset.about}")
    table = Table("name", "images", "size", "classes", "dimensions", "origin", title=f"prepared in {data_root()}")
    for m in stores:
        size = f"{m.width}x{m.height}"
        table.add_row(m.name, f"{m.count:,}", size, str(len(m.classes)), str(len(m.factors)), m.source)
    print_table(table)


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="synthetic, stl10 or things")],
    source: Annotated[
        Path | None, typer.Option(help="Folder (STL-10: or archive) with the original files; default: download.")
    ] = None,
) -> None:
    """Make the stores of a known dataset."""
    from moe.data.datasets import DATASETS
    from moe.data.store import data_root

    dataset = DATASETS[name]
    with progress_bar(f"preparing {name}") as progress:
        stores = dataset.prepare(data_root(), source, progress)
    for store in stores:
        _describe(store.manifest)


@data_app.command("import")
def data_import(
    name: Annotated[str, typer.Argument(help="Name for the images.")],
    path: Annotated[Path, typer.Argument(help="A folder, a zip, a .npy/.npz array, or a THINGS folder.")],
    labels: Annotated[Path | None, typer.Option(help="Labels: .csv, .tsv, .txt, .npy or .bin.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Class names, one a line, in label order.")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="Pixels a side; default: the images' own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace images of the same name.")] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="THINGS: keep images of concepts without dimensions.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read, and list them.")
    ] = False,
    password: Annotated[
        str | None, typer.Option(envvar="MOE_ZIP_PASSWORD", help="Of an encrypted zip.", show_envvar=True)
    ] = None,
) -> None:
    """Make a store of your own images."""
    from moe.data.datasets import import_images

    with progress_bar(f"importing {name}") as progress:
        store = import_images(
            name, path, labels=labels, classes=classes, size=size, replace=force, allow_unknown=allow_unknown,
            skip_bad=skip_bad, password=password, progress=progress,
        )  # fmt: skip
    _describe(store.manifest)


def _describe(manifest: Any) -> None:
    from moe.wording import counted, first_few

    parts = [f"{manifest.name}: {counted(manifest.count, 'image')} of {manifest.width}x{manifest.height}"]
    if manifest.classes:
        number = len(manifest.classes)
        parts.append(f"{number} class{'es' if number > 1 else ''} ({first_few(manifest.classes)})")
    if manifest.factors:
        parts.append(f"{len(manifest.factors)} dimensions")
    out.print(", ".join(parts))
    for note in manifest.notes:
        out.print(f"  {note}")
    for path, why in manifest.left_out.items():
        out.print(f"  left out: {path} is {why}")


@data_app.command("verify")
def data_verify(name: Annotated[str, typer.Argument(help="Name of a store.")]) -> None:
    """Compare a store's files with their checksums."""
    from moe.data.store import ImageStore

    ImageStore.open(name).verify()
    out.print(f"{name}: every file matches its checksum")


@app.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """What works here: devices, data, tracker, storage; what is missing and the command that mends it."""
    from sweeps.doctor import examine

    checks = examine()
    if as_json:
        print_json({"checks": [check.as_json() for check in checks]})
    else:
        for check in checks:
            word, colour = ("ok", "green") if check.ok else ("stop", "red") if check.fatal else ("note", "yellow")
            out.print(
                Text(f"{word:4}", colour),
                f"{check.name}: {check.found}" + (f"\n     -> {check.mend}" if check.mend else ""),
            )
    if any(check.fatal for check in checks):
        raise typer.Exit(FAILURE)


def _fail(error: Exception) -> NoReturn:
    code, mistake = exit_code_of(error), isinstance(error, UserError)
    known = mistake or code == NO_ROOM or isinstance(error, LackOfMemoryError)
    if code in (OUT_OF_MEMORY, NO_ROOM) and "MOE_SWEEP" not in os.environ:  # nobody reads it who knows what to do
        code = USER_MISTAKE if mistake else FAILURE
    with contextlib.suppress(OSError):  # where this is printed the disk may be full; the code says so
        if os.environ.get("MOE_DEBUG"):
            traceback.print_exception(error)
        err.print(f"error: {error if mistake else failure(error)}")
        if not known and code in (FAILURE, OUT_OF_MEMORY) and not os.environ.get("MOE_DEBUG"):
            err.print("(`moe --debug ...` shows where)")
    raise SystemExit(code)


def main() -> None:
    """Run the command; mistakes end with one sentence and code 2, failures with code 1."""
    os.environ["MPLBACKEND"] = "agg"  # figures go into files; a notebook sets its own for what it starts
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal or a file of another encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="moe")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:  # noqa: BLE001 - the one place where a failure becomes a message
        _fail(error)


if __name__ == "__main__":
    with leaving():
        main()
