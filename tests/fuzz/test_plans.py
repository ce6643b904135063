"""Sweep files, configs and KEY=VALUE words: shipped ones with changes, and ones made of the format's own words."""

import json
from importlib import resources
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from moe.config import parameter_types, parse_assignments
from sweeps.plan.collapse import collapsed
from sweeps.plan.config_files import run_config
from sweeps.plan.distributions import DISTRIBUTIONS
from sweeps.plan.goal import METRICS, STOPPING_KEYS
from sweeps.plan.parameters import KEYS as PARAMETER_KEYS
from sweeps.plan.source import shipped
from sweeps.plan.spec import expand, load_sweep, restore, with_overrides
from tests.fuzz.bounds import taken_or_refused

SHIPPED = {name: resources.files("sweeps").joinpath("shipped", name).read_text() for name in shipped()}
PATHS = list(parameter_types())

# --- values -----------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from(
        [0.1, 0.5, 1.0, -0.0, 1e-9, 1e308, 5e-324, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**400), 710, -710]
    ),
    st.floats(),
)
WORDS = st.one_of(
    st.sampled_from(
        [
            "", "None", "yes", "1_000", "1e-5", "0x1f", "1:30", "2026-11-31", "2026-11-01", "~", "nan", "synthetic",
            "a+b", "../x", "noisy_top_k", "supervised", "16-mixed", "\ud800", "\x00", "x" * 300, "${args}", "<<", "*a",
            "&a", "!!bool x", "='",
        ]
    ),
    st.text(max_size=8),
)  # fmt: skip
SCALARS = st.one_of(NUMBERS, WORDS, st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)

# --- sweep files ------------------------------------------------------------------------------------------------------

ENTRIES = st.one_of(
    st.fixed_dictionaries({"values": st.lists(SCALARS, max_size=5)}),
    st.fixed_dictionaries({"value": VALUES}),
    st.fixed_dictionaries(
        {"min": NUMBERS, "max": NUMBERS}, optional={"distribution": st.sampled_from(list(DISTRIBUTIONS))}
    ),
    st.dictionaries(st.sampled_from(PARAMETER_KEYS), VALUES, max_size=5),
    st.fixed_dictionaries(
        {"distribution": st.sampled_from(list(DISTRIBUTIONS))},
        optional=dict.fromkeys(("min", "max", "mu", "sigma", "q", "a", "b"), NUMBERS),
    ),
    VALUES,
)
PARAMETERS = st.dictionaries(st.sampled_from(PATHS) | WORDS, ENTRIES, max_size=5)
METRIC = st.fixed_dictionaries(
    {"name": st.sampled_from(METRICS)}, optional={"goal": st.sampled_from(["minimize", "maximize"]), "target": NUMBERS}
)
STOPPING = st.dictionaries(st.sampled_from(STOPPING_KEYS), NUMBERS | st.sampled_from(["hyperband", True]), max_size=5)
SWEEPS = st.fixed_dictionaries(
    {"method": st.sampled_from(["grid", "random", "bayes"]) | WORDS, "parameters": PARAMETERS | VALUES},
    optional={
        "run_cap": st.integers(1, 30) | VALUES,
        "metric": METRIC | VALUES,
        "early_terminate": st.builds(lambda rest: {"type": "hyperband"} | rest, STOPPING) | VALUES,
        "name": WORDS | VALUES,
        "controller": VALUES,
        "command": VALUES,
        "description": VALUES,
    },
)
LINES = sorted({line for text in SHIPPED.values() for line in text.splitlines()})
SNIPPETS = st.one_of(
    st.sampled_from(LINES),
    st.sampled_from(
        [
            "\n", "  ", "\t", ":", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: *a", "!!timestamp ", "!!bool ", "!!int ",
            "!!binary ", "!!python/name:os.system ", "'", '"', "#", "|\n", ">\n", "---\n", "...\n", "? ", "%YAML 1.2\n",
            "0o7", ".inf", ".nan", "\\x", "\x07", "\ufeff", "run_cap: 1000000\n", "s: 2147483648\n", "values: [0, 0]\n",
            "min: 1\n", "max: 9\n",
        ]
    ),
    st.text(max_size=5),
)  # fmt: skip


@st.composite
def changed(draw):
    """A shipped file with up to six pieces cut out, doubled or put in."""
    text = draw(st.sampled_from(list(SHIPPED.values())))
    for _ in range(draw(st.integers(1, 6))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 30))
        what = draw(st.sampled_from(["cut", "double", "put"]))
        middle = {"cut": "", "double": text[at : at + length] * 2, "put": draw(SNIPPETS) + text[at : at + length]}[what]
        text = text[:at] + middle + text[at + length :]
    return text


def written(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogatepass")


def planned(path: Path) -> None:
    """What a launch does with a file before anything is written, and what an agent does with what was."""
    with taken_or_refused():
        sweep = load_sweep(str(path))
        cells = expand(sweep)
        collapsed(sweep, cells)
        raw = json.loads(json.dumps(sweep.raw))
        assert restore(sweep.name, raw, sweep.digest).parameters.keys() == sweep.parameters.keys()
        for cell in cells:
            json.dumps(cell.values).encode()


@given(text=changed())
def test_changed_sweep_files(tmp_path, text):
    written(tmp_path / "s.yaml", text)
    planned(tmp_path / "s.yaml")


@given(tree=SWEEPS, as_json=st.booleans())
def test_made_sweep_files(tmp_path, tree, as_json):
    text = json.dumps(tree, default=str) if as_json else yaml.safe_dump(tree, allow_unicode=True)
    written(tmp_path / "s.yaml", text)
    planned(tmp_path / "s.yaml")


@given(content=st.binary(max_size=200))
def test_sweep_files_of_any_bytes(tmp_path, content):
    (tmp_path / "s.yaml").write_bytes(content)
    planned(tmp_path / "s.yaml")


# --- configs and words ------------------------------------------------------------------------------------------------

SECTIONS = sorted({path.partition(".")[0] for path in PATHS})
LEAVES = sorted({path.rpartition(".")[2] for path in PATHS})
CONFIGS = st.dictionaries(
    st.sampled_from(SECTIONS) | WORDS,
    st.dictionaries(st.sampled_from(LEAVES) | WORDS, VALUES, max_size=4) | VALUES,
    max_size=4,
)
PAIRS = st.lists(
    st.builds("{}={}".format, st.sampled_from(PATHS) | WORDS, VALUES.map(str) | SNIPPETS | WORDS) | WORDS,
    min_size=1,
    max_size=4,
)


@given(tree=CONFIGS, as_json=st.booleans(), pairs=st.just([]) | PAIRS)
def test_configs(tmp_path, tree, as_json, pairs):
    text = json.dumps(tree, default=str) if as_json else yaml.safe_dump(tree, allow_unicode=True)
    written(tmp_path / "c.yaml", text)
    with taken_or_refused():
        config = run_config(tmp_path / "c.yaml", pairs)
        assert run_config(_again(tmp_path, config), []).identity() == config.identity()


def _again(folder, config):
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json"), indent=2))
    return folder / "config.json"


@given(name=st.sampled_from(sorted(SHIPPED)), pairs=PAIRS)
def test_words(name, pairs):
    with taken_or_refused():
        run_config(None, pairs)
    with taken_or_refused():
        with_overrides(load_sweep(name), parse_assignments(pairs, "--set: "))
