"""Tokens follow their file; while it is away or empty, those known last stay, and that is said once."""

import logging
import os
from pathlib import Path

import pytest

from driftwatch.config_connections import HttpSource
from driftwatch.errors import ConfigError
from driftwatch.sources.tokens import Tokens


def tokens(path: Path) -> Tokens:
    source = HttpSource(kind="http", port=0, tokens_file=str(path))
    return Tokens(path, source.tokens)


def admitted(found: Tokens) -> set[str]:
    return {token for token in ("one", "two", "three") if found.admit(f"Bearer {token}")}


def turn(link: Path, folder: Path) -> None:
    """As Kubernetes changes a mounted secret: a link is renamed over another."""
    new = link.with_name("new")
    new.symlink_to(folder)
    os.replace(new, link)


def test_a_secret_that_is_turned_by_its_link_is_read_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(f"{name}\n")
        os.utime(tmp_path / name / "tokens", ns=(0, 0))  # the same size and time: only the file is another
    turn(tmp_path / "..data", tmp_path / "one")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    found = tokens(tmp_path / "tokens")
    assert admitted(found) == {"one"}
    turn(tmp_path / "..data", tmp_path / "two")
    assert admitted(found) == {"one"}
    found.refresh()
    assert admitted(found) == {"two"}


@pytest.mark.parametrize("content", [None, "", " \n\n", b"\xff"])
def test_without_tokens_those_known_last_stay(
    tmp_path: Path, content: str | bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    path.write_text("one\n\ntwo")
    found = tokens(path)
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for _ in range(3):
        found.refresh()
    assert admitted(found) == {"one", "two"}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert str(path) in caplog.text
    path.write_text("three")
    found.refresh()
    assert admitted(found) == {"three"}


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_a_token_lets_nobody_in_at_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(ConfigError, match="must"):
        tokens(path)
