"""Where and when something was measured, and tables in Markdown."""

import argparse
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = ("numpy", "scipy", "msgspec", "pydantic")


def parser(text: str | None) -> argparse.ArgumentParser:
    """Of a benchmark's arguments; `--help` tells what it measures."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def write(name: str, title: str, command: str, body: Sequence[str]) -> None:
    """Writes docs/NAME.md: a title, how it is made again, where it was measured, then the body's paragraphs."""
    (DOCS / f"{name}.md").write_text("\n\n".join([f"# {title}", made(command), *body]) + "\n", "utf-8")


def made(command: str) -> str:
    """How something is made again, and where and when it was measured."""
    return (
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d} at commit {commit()}: {machine()}; "
        f"Python {platform.python_version()}, {', '.join(f'{p} {version(p)}' for p in PACKAGES)}."
    )


README = DOCS.parent / "README.md"


def marked(mark: str, body: Sequence[str]) -> str:
    """Paragraphs between the comments by which `embed` finds them again."""
    return "\n".join([f"<!-- {mark} -->", "\n\n".join(body), f"<!-- /{mark} -->"])


def embed(mark: str, body: Sequence[str], page: Path = README) -> None:
    """Writes paragraphs into a page, between the comments `<!-- MARK -->` and `<!-- /MARK -->`."""
    before, _, after = parted(mark, page)
    page.write_text(before + marked(mark, body) + after, "utf-8")


def parted(mark: str, page: Path) -> tuple[str, str, str]:
    """What stands in a page before a mark, between its comments, and after."""
    before, begin, rest = page.read_text("utf-8").partition(f"<!-- {mark} -->\n")
    inside, end, after = rest.partition(f"<!-- /{mark} -->")
    if not (begin and end):
        raise ValueError(f"{page.name} must hold the comments <!-- {mark} --> and <!-- /{mark} -->; got none or one.")
    return before, inside, after


def embed_rows(mark: str, head: Sequence[str], rows: Sequence[Sequence[str]], order: Sequence[str], page: Path) -> None:
    """Writes rows into a page's table, by their first cell: others of the table that are in `order` stay."""
    held = [line.strip("| ").split(" | ") for line in parted(mark, page)[1].splitlines() if line.startswith("|")]
    known = {row[0]: row for row in held if len(row) == len(head)} | {row[0]: row for row in rows}
    embed(mark, [table(head, [known[name] for name in order if name in known])], page)


def command() -> str:
    """How this process was started, as a person would type it."""
    module = Path(sys.argv[0]).stem
    return " ".join(["OPENBLAS_NUM_THREADS=1 python -m", f"benchmarks.{module}", *sys.argv[1:]])


def machine() -> str:
    """The processor, and how many of them."""
    from os import cpu_count

    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {cpu_count()} logical cores, {platform.system()}"


def commit() -> str:
    """The commit's short name."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=DOCS.parent, check=False
    )
    return found.stdout.strip() or "unknown"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
