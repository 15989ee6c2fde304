"""What docs/ says can be followed: snippets run, links lead to a page and a heading, decisions have one form."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
MOST_LINES = 40  # of a decision


def without_code(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end in, as GitHub names it."""
    headings = re.findall(r"^#+ +(.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a relative link of a page names a file or folder, and a heading where it names one."""
    target, _, anchor = link.partition("#")
    there = (page.parent / target).resolve() if target else page
    return there.exists() and (not anchor or anchor in anchors(there))


def test_every_snippet_of_the_statistics_says_what_it_shows() -> None:
    text = (DOCS / "statistics.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "docs/statistics.md", None, None)
    said: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert outcome.failed == 0, "".join(said)
    assert outcome.attempted == "".join(blocks).count(">>> ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_relative_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)", without_code(page)) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if not leads_somewhere(page, link)] == []


def test_decisions_are_numbered_without_a_gap_and_named_in_the_architecture() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{i:04d}" for i in range(1, len(DECISIONS) + 1)]
    named = re.findall(r"\]\(decisions/([^)]+)\)", (DOCS / "architecture.md").read_text("utf-8"))
    assert named == [path.name for path in DECISIONS]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_a_date_a_context_a_choice_and_its_price(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.match(rf"# {page.name[:4]}: .+\n\n\d{{4}}-\d\d-\d\d\n\n## Context\n", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "What we gave up"]
    assert len(text.splitlines()) <= MOST_LINES


def test_the_glossary_has_a_line_a_term_in_the_order_of_the_alphabet() -> None:
    head, *lines = (DOCS / "glossary.md").read_text("utf-8").strip().splitlines()
    terms = [found[1] for line in lines if (found := re.fullmatch(r"- \*\*(.+)\*\*: .+\.", line))]
    assert head == "# Glossary"
    assert len(terms) == len(lines) - 1
    assert terms == sorted(set(terms))
