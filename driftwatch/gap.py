"""What is missing of a shard: records that were gone before they could be read, and the windows that this touches."""

from dataclasses import dataclass
from math import inf

Span = tuple[float, float]
"""Event times [from, to) in which records are missing; −inf and inf where that is not known."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Panes `first` to `last` may lack records; `last` inf: until it is known where the log goes on."""

    first: float
    last: float

    @classmethod
    def begun(cls, first: float, before: "Gap | None") -> "Gap":
        """A gap that begins at a pane; one that is not yet over goes on."""
        return cls(first if before is None else min(first, before.first), inf)

    def ended(self, last: int) -> "Gap":
        """The log goes on in this pane."""
        return Gap(min(self.first, last), last) if self.first > -inf else Gap(last, last)

    def touches(self, window: int, panes: int) -> bool:
        """Whether a window of so many panes, the last one of which is `window`, lacks records."""
        return self.first <= window and window - panes < self.last

    def span(self, slide_s: float) -> Span:
        """As event times, which other settings understand."""
        return self.first * slide_s, (self.last + 1) * slide_s

    @classmethod
    def of_span(cls, span: Span | None, slide_s: float) -> "Gap | None":
        """The inverse of `span`."""
        return None if span is None else cls(_rounded(span[0] / slide_s), _rounded(span[1] / slide_s - 1))


def _rounded(pane: float) -> float:
    return pane if abs(pane) == inf else round(pane)
