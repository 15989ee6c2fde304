"""What a newcomer meets first does what it says: the README's commands, its configuration, links and recipes."""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from os import environ
from pathlib import Path

import pytest
import yaml

from driftwatch.config import load
from driftwatch.decision import decode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md")])
MADE_IN_README = "credit.yaml"


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of a language ("" = none named)."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def quick_start() -> list[str]:
    """The commands of the quick start, in order."""
    section = README.split("## Quick start\n", 1)[1].split("\n## ", 1)[0]
    return [line for block in blocks("sh", section) for line in block.splitlines()]


@dataclass(frozen=True)
class Tried:
    """A folder in which the quick start was followed, and what each command said."""

    folder: Path
    said: dict[str, str]


def run(commands: list[str], folder: Path) -> dict[str, str]:
    """Runs each in a shell of its own; a failure ends the test."""
    path = f"{Path(sys.executable).parent}:{environ['PATH']}"
    said = {}
    for command in commands:
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=folder,
            env={**environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said[command] = done.stdout
    return said


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """The README followed to the letter, but for `check`, which takes its time."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "sample_streams", folder / "sample_streams")
    (config,) = blocks("yaml")
    (folder / MADE_IN_README).write_text(config)
    return Tried(folder, run([c for c in quick_start() if not c.startswith("driftwatch check")], folder))


def test_the_quick_start_goes_from_a_sample_to_stored_decisions() -> None:
    words = [command.split()[1] for command in quick_start() if command.startswith("driftwatch ")]
    assert words == ["init", "profile", "check", "replay", "run", "decisions"]


def test_the_replay_shows_the_windows_and_alarms_that_the_readme_shows(tried: Tried) -> None:
    (said,) = (text for command, text in tried.said.items() if " replay " in command)
    (shown,) = (block for block in blocks("") if block.startswith("window end"))

    def without_p(table: str) -> list[str]:
        return [re.sub(r"\d\.\de[-+]\d+", "p", line).split(",")[0] for line in table.splitlines()]

    assert without_p(said) == without_p(shown)


def test_what_run_stores_is_what_replay_shows(tried: Tried) -> None:
    (replayed,) = (text for command, text in tried.said.items() if " replay " in command)
    (stored,) = (text for command, text in tried.said.items() if " decisions " in command)
    assert stored == replayed
    logged = (tried.folder / "build" / "decisions.jsonl").read_bytes().splitlines()
    assert [decode(line).verdict for line in logged].count("drift") == 3


def test_the_configuration_that_init_starts_has_the_features_of_the_readmes(tried: Tried) -> None:
    ours, started = (
        yaml.safe_load((tried.folder / name).read_text()) for name in (MADE_IN_README, "build/started.yaml")
    )
    assert started["events"]["features"] == ours["events"]["features"]
    assert load(tried.folder / MADE_IN_README).alarms.budget.alarms == 1


def test_what_the_readmes_configuration_leaves_commented_is_valid_too(tmp_path: Path) -> None:
    (config,) = blocks("yaml")
    uncommented = re.sub(r"^  # - ", "  - ", config, flags=re.MULTILINE)
    assert uncommented != config
    (tmp_path / "config.yaml").write_text(uncommented)
    assert [sink.kind for sink in load(tmp_path / "config.yaml").sinks] == ["log", "prometheus", "webhook"]


@pytest.mark.slow
def test_the_check_of_the_readme_reports_on_the_reference(tried: Tried) -> None:
    commands = [command for command in quick_start() if command.startswith("driftwatch check")]
    (said,) = run(commands, tried.folder).values()
    assert "10,080" in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    broken = [t for t in targets if not re.match(r"[a-z]+:", t) and not (page.parent / t).exists()]
    assert broken == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_recipe_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
    assert named
    recipes = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert named <= recipes


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_check_runs_every_check_and_ends_with_the_tests() -> None:
    dry = ["make", "--dry-run", "--no-print-directory", "check"]
    ours = {name: value for name, value in environ.items() if not name.startswith("MAKE")}  # make may run these tests
    lines = subprocess.run(dry, cwd=ROOT, env=ours, capture_output=True, text=True, check=True).stdout.splitlines()
    tools = ("ruff format", "ruff check", "mypy", "lint-imports", "pytest")
    at = [max(i for i, line in enumerate(lines) if tool in line) for tool in tools]
    assert at == sorted(at)
    assert at[-1] == len(lines) - 1


def test_ci_runs_the_same_recipe_and_fails_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    bin = tmp_path / "bin"
    bin.mkdir()
    make = bin / "make"
    make.write_text('#!/bin/sh\necho "$PWD: make $*"\nexit 7\n')
    make.chmod(0o755)
    command = [str(tmp_path / ".ci" / "run")]
    path = f"{bin}:{environ['PATH']}"
    done = subprocess.run(command, env={**environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, f"{tmp_path}: make check\n")


def test_the_change_log_the_licence_and_the_package_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"\n## {project['version']}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
