"""Progress bars on standard error, for a person who waits; none where standard error is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def share_bar(what: str) -> Iterator[Callable[[float], None]]:
    """A bar that is told the share that is done, 0 to 1."""
    with tqdm(total=100, desc=what, unit="%", disable=None, bar_format="{desc} {bar} {n:.0f} % {elapsed}") as bar:

        def told(share: float) -> None:
            bar.update(100 * share - bar.n)

        yield told


@contextmanager
def record_bar(what: str) -> Iterator[Callable[[int], None]]:
    """A bar that is told how many more records were read."""
    with tqdm(desc=what, unit=" records", unit_scale=True, disable=None) as bar:
        yield bar.update
