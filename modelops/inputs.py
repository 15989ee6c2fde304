"""Where a model's rows come from: prediction log, labels, older logs, Kafka topics; all steady while they are read."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from modelops.config import Config, KafkaSource, ModelEntry
from modelops.prediction_log import shadow_log, steady
from modelops.topic_log import TopicLog, Topics


class Inputs(NamedTuple):
    """Files, and what was read from topics."""

    files: tuple[Path, ...]
    topics: Topics


@contextmanager
def to_train(config: Config, model: str, since_s: float, progress: Callable[[float], None]) -> Iterator[Inputs]:
    """What a snapshot is made of. Raises DataError, InputsUnavailable."""
    entry, source = config.model(model), config.model(model).source
    with ExitStack() as held:
        topics = Topics()
        if source is not None:
            asked = (*source.topics.predictions, *source.topics.labels)
            topics = held.enter_context(_log(config, model, source).read(asked, since_s, progress))
        is_in_topics = source is not None and bool(source.topics.predictions)
        logs = () if is_in_topics else held.enter_context(steady(entry.predictions))
        yield Inputs((*entry.history, *logs, *_labels(entry)), topics)


@contextmanager
def served(config: Config, model: str) -> Iterator[tuple[Path, ...]]:
    """The files of what our model servers answered, with the labels. Raises DataError, InputsUnavailable."""
    entry, source = config.model(model), config.model(model).source
    with ExitStack() as held:
        topics = Topics()
        if source is not None and source.topics.labels:
            topics = held.enter_context(_log(config, model, source).read(source.topics.labels, 0.0))
        logs = held.enter_context(steady(entry.predictions)) + held.enter_context(steady(shadow_log(entry.predictions)))
        yield (*logs, *_labels(entry), *topics.files)


def _log(config: Config, model: str, source: KafkaSource) -> TopicLog:
    return TopicLog(source, config.state.folder / "topics" / model, config.model(model).rotation)


def _labels(entry: ModelEntry) -> tuple[Path, ...]:
    return () if entry.labels is None else (entry.labels,)
