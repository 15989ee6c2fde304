"""What learns a profile, made from a configuration."""

from detectors.reference import MIN_ROWS
from driftwatch import references
from driftwatch.config import Config
from driftwatch.errors import ConfigError, StateError
from driftwatch.learning import Learner
from driftwatch.records import Schema
from driftwatch.store import Store


def learning_version(config: Config) -> str | None:
    """The version whose profile is learned from the stream."""
    reference = config.reference
    return None if reference is None or reference.learn is None else config.model.version


def make_learner(config: Config, store: Store, schema: Schema, assigned: references.Assigned) -> Learner | None:
    """What keeps the rows to learn from, where the configured version has no profile yet. Raises ConfigError."""
    reference = config.reference
    stored = store.learning()
    if reference is None or reference.learn is None or config.model.version in assigned:
        if stored is not None:
            store.forget_learning()
        return None
    if reference.save is not None and not reference.save.parent.is_dir():
        raise ConfigError(f"`reference.save` must lie in a folder; there is none at {reference.save.parent}. Make it.")
    try:
        learner = Learner.of(schema, reference.learn, config.window.lateness, 2 * MIN_ROWS, stored)
    except ValueError as error:
        raise StateError(f"`state.path`: {error} Begin with another file.") from error
    if stored is not None and not learner.state.shards:
        store.forget_learning()
    return learner
