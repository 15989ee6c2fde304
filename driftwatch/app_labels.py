"""What joins late labels, made from a configuration."""

from collections.abc import Iterable

from detectors.profile import Profile
from driftwatch.app_figures import make_figures
from driftwatch.config import Config
from driftwatch.config_connections import FileSource
from driftwatch.label_clock import LabelClock
from driftwatch.label_log import LabelLog
from driftwatch.labels import LabelBook
from driftwatch.late_labels import LateLabels
from driftwatch.ledger import LabelTerms
from driftwatch.outcomes import OutcomeCounter
from driftwatch.records import Schema


def make_labels(config: Config, schema: Schema, known: Iterable[Profile], *, stored: bool) -> LateLabels | None:
    """Where labels are kept until their predictions, or the rest of their window, are there; None: none are read."""
    label, window = config.events.label, config.window
    if label is None:
        return None
    terms = LabelTerms.of(
        wait_s=label.wait, complete=label.complete, max_pending=label.max_pending, slide_s=window.slide
    )
    figures = make_figures(config)
    counters = {profile.hash: OutcomeCounter(profile, schema, figures) for profile in known}
    book = LabelBook(terms, schema, counters, LabelLog() if stored else None)
    clock = LabelClock(window.lateness)
    source = config.source
    grows = isinstance(source, FileSource) and source.follow and source.path.labels is not None
    beside = stored and (config.labels is not None or grows)  # what is replayed is all there
    return LateLabels(book, clock, lambda profile: OutcomeCounter(profile, schema, figures), beside=beside)
