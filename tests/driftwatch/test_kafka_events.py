"""What comes over Kafka beside plain events: CloudEvents with their attributes in headers or around them, halves."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from sidecar import FEATURES, TIME, TWO_DRIFTS, WINDOW, drifting, events, replayed, rounded, write_config, write_events

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")

from kafka_sidecar import CLIENTS, Sidecar, Sidecars, new_topic, produce, wait_until

from driftwatch.decision import rfc3339
from driftwatch.decode.bodies import REQUEST, RESPONSE

SHORT = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 300}  # a dead member's partitions move soon
DECODING = {"features": FEATURES, "prediction": {"kind": "numeric"}}
STRUCTURED = {"content-type": "application/cloudevents+json"}


def attributes(event: Any, type: str = "com.example.scored") -> dict[str, str]:
    """The attributes of the CloudEvent that an event stands in."""
    return {"specversion": "1.0", "id": event["id"], "source": "/s", "type": type, "time": rfc3339(event["time"])}


def data(event: Any) -> dict[str, Any]:
    """What is left of the event beside them."""
    return {key: value for key, value in event.items() if key not in {"id", "time"}}


def headers(found: dict[str, str]) -> dict[str, str]:
    """Attributes as headers of a record."""
    return {"content-type": "application/json", "traceparent": "00-1-1-00"} | {f"ce_{k}": v for k, v in found.items()}


def binary(event: Any) -> tuple[Any, dict[str, str]]:
    return data(event), headers(attributes(event))


def structured(event: Any) -> Any:
    return attributes(event) | {"data": data(event)}


def asked(event: Any) -> tuple[Any, dict[str, str]]:
    """The request that an event comes from, as a model server's logger sends it."""
    return {"instances": [list(event["features"].values())]}, headers(attributes(event, REQUEST))


def answered(event: Any) -> tuple[Any, dict[str, str]]:
    """Its response."""
    return {"predictions": [event["prediction"]]}, headers(attributes(event, RESPONSE))


def undisturbed(folder: Path, stream: list[Any]) -> list[Any]:
    """What `replay` says of the plain events."""
    return rounded(replayed(write_config(folder, window=TIME), write_events(folder / "events.jsonl", stream)))


def decides(sidecar: Sidecar, want: list[Any], before: list[Any] | None = None) -> list[Any]:
    """Waits for all decisions but the last, which a later event would close."""
    old = before or []
    wait_until(lambda: len(old) + len(sidecar.decisions()) >= len(want) - 1, "the decisions", [sidecar])
    found = rounded(old + sidecar.decisions())
    assert [d["window"] for d in found] == [d["window"] for d in want[:-1]]
    assert [d["scores"] for d in found] == [d["scores"] for d in want[:-1]]
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_cloud_events_are_read_in_either_form(client: str, kafka: str, sidecars: Sidecars, folder: Path) -> None:
    stream, topic = drifting(TWO_DRIFTS[:6]), new_topic(kafka)
    forms = (binary, lambda e: (structured(e), STRUCTURED), lambda e: e)
    sent = [forms[i // 100 % 3](e) for i, e in enumerate(stream)]
    produce(kafka, topic, [*sent[:50], (None, headers(attributes(stream[0]))), *sent[50:]])
    sidecar = sidecars.make(kafka, client, [topic], window=TIME).start()
    assert decides(sidecar, want := undisturbed(folder, stream)) == want[:-1]
    wait_until(lambda: sidecar.count() == len(stream) + 1, "every record", [sidecar])
    assert (sidecar.count("used"), sidecar.count("tombstone")) == (len(stream), 1)


@pytest.mark.parametrize("client", [CLIENTS[0], pytest.param(CLIENTS[1], marks=pytest.mark.slow)])
def test_requests_meet_responses_of_another_partition_also_across_a_kill_and_without_the_state(
    client: str, kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    stream, topic = drifting(TWO_DRIFTS[:9]), new_topic(kafka, 2)
    want, third = undisturbed(folder, stream), len(stream) // 3
    sidecar = sidecars.make(kafka, client, [topic], window=TIME, settings=SHORT).start()
    before: list[Any] = []
    for life in range(3):
        produce(kafka, topic, map(asked, stream[life * third : (life + 1) * third]), 0)
        begin = max(0, life * third - 20)  # the last responses come after the end that comes first
        produce(kafka, topic, map(answered, stream[begin : (life + 1) * third - (20 if life < 2 else 0)]), 1)
        n = (life + 1) * third // WINDOW - 1 - len(before)
        wait_until(lambda least=n: len(sidecar.decisions()) >= least, "this part's windows", [sidecar])
        if life == 0:
            sidecar.kill()
            sidecar.start()
        elif life == 1:
            before = sidecar.decisions()
            assert sidecar.end() == 0
            shutil.rmtree(sidecar.folder / "state")
            sidecar.start()
    decides(sidecar, want, before)


@pytest.mark.parametrize("client", [CLIENTS[1], pytest.param(CLIENTS[0], marks=pytest.mark.slow)])
def test_requests_and_responses_without_attributes_are_read_where_the_configuration_says_so(
    client: str, kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    keeping = {"retention.ms": "-1"}  # the records are as old as the events
    stream, topic = drifting(TWO_DRIFTS[:4]), new_topic(kafka, **keeping)
    halves: list[Any] = []
    for event in stream:
        at = {}, 1000 * event["time"]
        tensor = {"name": "out", "shape": [1], "datatype": "FP64", "data": [event["prediction"]]}
        produced = {"id": event["id"], "instances": [event["features"]]}, {"id": event["id"], "outputs": [tensor]}
        halves.extend((half, *at) for half in produced)
    produce(kafka, topic, [*halves, b'{"id": "no half"}'])
    inference = DECODING | {"decode": "open-inference"}
    sidecar = sidecars.make(kafka, client, [topic], window=TIME, events=inference).start()
    assert decides(sidecar, want := undisturbed(folder, stream)) == want[:-1]
    wait_until(lambda: sidecar.count("poison") == 1, "what is no half", [sidecar])


def test_a_recorded_stream_may_hold_cloud_events(folder: Path) -> None:
    stream = events(4 * WINDOW)
    want = undisturbed(folder, stream)
    path = write_events(folder / "cloud.jsonl", [structured(e) for e in stream])
    found = replayed(write_config(folder, window=TIME, events=DECODING | {"decode": "cloudevents"}), path)
    assert rounded(found) == want
