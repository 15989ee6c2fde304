"""A member of a group judges its share of the shards by that share of the budget."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sidecar import TIME, events, write_config

from detectors.profile import Profile
from driftwatch import config
from driftwatch.count import ProfileCounter
from driftwatch.decode.json import JsonDecoder
from driftwatch.monitor import Monitor
from driftwatch.records import Frames, Shard, Stream, Window
from driftwatch.sources.kafka import shard_of
from driftwatch.sources.kafka_client import Partition


@pytest.mark.parametrize(("held", "of"), [(2, 4), (1, 3)])
def test_the_threshold_of_a_share_is_that_of_its_part_of_the_rate(folder: Path, held: int, of: int) -> None:
    profile = Profile.from_bytes((folder / "reference.profile").read_bytes(), codes=False)
    schema = config.load(write_config(folder, window=TIME)).event_schema()
    messages = [msgspec.json.encode(event) for event in events(250)]
    frames = Frames(Shard("t/0"), messages, np.arange(len(messages) + 1))
    counter = ProfileCounter(profile, schema)
    table = counter.empty()
    counter.count(table, JsonDecoder(schema).decode(frames).records, slice(None))
    whole = Window(Stream("credit", "1"), 0.0, 250.0, 250, table, profile.hash)
    shards = tuple(shard_of(Partition("t", n)) for n in range(held))
    rate = 1 / 1000
    found = Monitor({profile.hash: (profile, rate)}, min_records=1).judge(replace(whole, share=(shards, of)))
    want = Monitor({profile.hash: (profile, rate * held / of)}, min_records=1).judge(whole)
    assert (found.threshold, found.caution_threshold) == (want.threshold, want.caution_threshold)
    alone = Monitor({profile.hash: (profile, rate)}, min_records=1).judge(whole)
    assert found.threshold is not None
    assert alone.threshold is not None
    assert found.threshold > alone.threshold
