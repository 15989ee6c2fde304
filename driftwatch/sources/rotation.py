"""The earlier files of a log that is rotated: those that were renamed away before they were read to their end."""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from driftwatch.records import Shard

_NUMBER = r"[0-9][0-9T:_.-]*Z?"  # or a date


@dataclass(frozen=True, slots=True)
class ReadBefore:
    """What an earlier run has read: positions by shard, the latest last; `waiting` have rows in unjudged windows."""

    positions: Mapping[Shard, int] = field(default_factory=dict)
    waiting: Set[Shard] = frozenset()

    def of(self, path: Path) -> "ReadBefore":
        """Of the files that had this name."""
        mine = f"{path.name}#"
        return ReadBefore(
            {shard: at for shard, at in self.positions.items() if shard.startswith(mine)},
            {shard for shard in self.waiting if shard.startswith(mine)},
        )


def neighbours(path: Path) -> Iterator[tuple[Path, bool]]:
    """The files beside a log that may have been it, in the order in which they were written to last.

    Each with whether its name says so: the log's with a number or a date behind it, or before its suffix. Others may
    have been renamed in another way; compressed ones are left out.
    """
    said = re.compile(
        f"{re.escape(path.name)}[.-]{_NUMBER}|{re.escape(path.stem)}[.-]{_NUMBER}{re.escape(path.suffix)}"
    )
    found = []
    for other in path.parent.glob(f"{_literal(path.stem)}*"):
        if other != path and other.suffix != ".gz" and other.is_file():
            try:
                found.append((other.stat().st_mtime_ns, other.name, other))
            except FileNotFoundError:
                continue  # renamed meanwhile: the next look finds it
    for _, name, other in sorted(found):
        yield other, said.fullmatch(name) is not None


def _literal(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
