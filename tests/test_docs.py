"""What the documents say is there: every `moe` command parses, every link and every path leads somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from cli import app
from sweeps.plan.source import shipped

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
PATH = re.compile(r"(?:docs|tests|benchmarks|moe|callbacks|sweeps|probes)/[\w./-]+\.(?:py|md|yaml|png|json|csv)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands() -> list[tuple[str, str]]:
    """Every `moe` command in an indented block, or alone between backticks, with the document that it stands in."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        lines += [span for span in re.findall(r"`(moe [^`\n]+)`", text) if "..." not in span]
        for line in lines:
            for part in re.split(r";\s|\s\|\s", line.split("  #")[0]):
                command = re.sub(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?", "", part.strip())
                if command.startswith("moe ") and not re.search(r"[\[\]{}|]", command):
                    found.append((name(document), command))
    return list(dict.fromkeys(found))


def test_the_documents_name_commands_at_all():
    assert len(commands()) > 40


@pytest.mark.parametrize(("document", "command"), commands())
def test_every_command_parses(document: str, command: str):
    """The words are those of a command and of its options; nothing is run."""
    at, words = typer.main.get_command(app), shlex.split(command, comments=True)[1:]
    while hasattr(at, "commands") and words and not words[0].startswith("-"):
        assert words[0] in at.commands, f"{document}: {command}: there is no {words[0]}"
        at = at.commands[words.pop(0)]
    at.make_parser(typer.Context(at, **at.context_settings)).parse_args([word for word in words if word != "--help"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_and_paths_lead_somewhere(document: Path):
    text = document.read_text()
    for target in LINK.findall(text):
        if "://" not in target:
            assert (document.parent / target.split("#")[0]).exists(), target
    for path in PATH.findall(text):
        assert (ROOT / path).exists() or (document.parent / path).exists(), path


def test_every_shipped_sweep_is_in_the_guide():
    guide = (ROOT / "docs/guide.md").read_text()
    assert [sweep for sweep in shipped() if f"`{sweep}`" not in guide] == []


def test_the_citation_is_that_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in project
