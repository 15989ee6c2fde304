"""What the sidecar reads from Kafka in a CPU-second, beside the bare client in the same run.

`python -m benchmarks.kafka HOST:PORT` (default: DRIFTWATCH_TEST_BOOTSTRAP) makes a topic of its own on that broker,
reads it with each client, bare and through `driftwatch run`, and writes docs/kafka_speed.md. CPU time of start-up is
left out: it counts from the first record that was read.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from benchmarks import document, speed

EVENTS = 300_000
CLIENTS = ("kafka-python", "confluent")
BARS = {"kafka-python": 60_000, "confluent": 120_000}
LIMIT_S = 300.0
TICKS_S = os.sysconf("SC_CLK_TCK")


def produce(address: str, topic: str, n: int) -> None:
    """Events of 25 features on the one partition of a new topic."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": address})
    for made in admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)]).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 50, "queue.buffering.max.messages": 200_000})
    for i, line in enumerate(speed.lines(n, np.random.default_rng(3), dirty=False)):
        producer.produce(topic, line[:-1], partition=0)
        if i % 10_000 == 9_999:
            producer.flush()
    producer.flush()


def bare(client: str, address: str, topic: str, n: int) -> float:
    """Records a CPU-second of the client alone, which only takes the values."""
    start_s, first, read = 0.0, 0, 0
    for values in (kafka_python if client == "kafka-python" else confluent)(address, topic):
        read += len(values)
        if not start_s:
            start_s, first = time.process_time(), read
        if read >= n:
            break
    return (read - first) / (time.process_time() - start_s)


def kafka_python(address: str, topic: str) -> Iterator[list[bytes]]:
    """Batches by kafka-python."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=address, max_poll_records=2000, metrics_enabled=False)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek(TopicPartition(topic, 0), 0)
    while True:
        for records in consumer.poll(timeout_ms=1000).values():
            yield [record.value for record in records]


def confluent(address: str, topic: str) -> Iterator[list[bytes]]:
    """Batches by confluent-kafka."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": address, "group.id": "bare", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    while True:
        yield [message.value() or b"" for message in consumer.consume(1000, 1)]


def sidecar(client: str, address: str, topic: str, n: int, folder: Path) -> tuple[float, float]:
    """Records a CPU-second of `driftwatch run`, and its most resident memory in MB."""
    settings = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    settings["source"] = {"kind": "kafka", "brokers": [address], "topics": [topic], "client": client}
    settings["source"]["group"] = f"{topic}-{client}"
    settings["sinks"] = [{"kind": "prometheus", "port": 0, "host": "127.0.0.1"}]
    settings["state"] = {"path": f"{client}/state.db"}
    config, log = folder / f"{client}.yaml", folder / f"{client}.log"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    with log.open("wb") as out:
        child = subprocess.Popen([sys.executable, "-m", "driftwatch", "run", "-c", str(config)], stdout=out, stderr=out)
    try:
        first = wait(1, log, child)
        start_s = cpu_s(child.pid)
        read = wait(n, log, child)
        return (read - first) / (cpu_s(child.pid) - start_s), speed.high_water(child.pid) / speed.MB
    finally:
        child.kill()
        child.wait()


def wait(n: int, log: Path, child: "subprocess.Popen[bytes]") -> float:
    """How many records the sidecar has read once they are n."""
    until_s = time.monotonic() + LIMIT_S
    while (found := read_by(log)) < n:
        if child.poll() is not None or time.monotonic() > until_s:
            sys.exit(
                f"driftwatch ended with {child.poll()} or read too little: {found}; {log.read_text('utf-8')[-500:]}"
            )
        time.sleep(0.5)  # a scrape costs the sidecar CPU time as well
    return found


def read_by(log: Path) -> float:
    """The records that the sidecar of this log says it has read."""
    port = re.search(r"http://[^:]+:(\d+)", log.read_text("utf-8"))
    if port is None:
        return 0.0
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:  # it ends, which `wait` says
        return 0.0
    return sum(float(x) for x in re.findall(r"^driftwatch_records_total\{[^}]*\} (\S+)", text, re.M))


def cpu_s(pid: int) -> float:
    """The CPU time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def main() -> None:
    """Measures and writes."""
    parser = document.parser(__doc__)
    parser.add_argument("address", nargs="?", default=os.environ.get("DRIFTWATCH_TEST_BOOTSTRAP"))
    parser.add_argument("--bare", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--topic", default=f"speed-{os.getpid()}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    address, topic = arguments.address, arguments.topic
    if address is None:
        print("no broker is named: python -m benchmarks.kafka HOST:PORT")
        return
    if arguments.bare:
        print(bare(arguments.bare, address, topic, EVENTS))
        return
    produce(address, topic, EVENTS)
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        config = speed.configure(folder)
        command = [sys.executable, "-m", "driftwatch", "profile", str(folder / "reference.csv"), "-c", str(config)]
        subprocess.run([*command, "-o", str(folder / "reference.profile")], check=True, capture_output=True)
        for client in CLIENTS:
            alone = [sys.executable, "-m", "benchmarks.kafka", address, "--bare", client, "--topic", topic]
            bare_rate = float(subprocess.run(alone, check=True, capture_output=True, text=True).stdout)
            rate, peak_mb = sidecar(client, address, topic, EVENTS, folder)
            bar = f"{BARS[client]:,}"
            rows.append([client, f"{bare_rate:,.0f}", f"{rate:,.0f}", f"{rate / bare_rate:.2f}", bar, f"{peak_mb:.0f}"])
            print(*rows[-1], flush=True)
    head = ["client", "bare, records/CPU-s", "`driftwatch run`, records/CPU-s", "ratio", "bar", "peak MB"]
    body = (
        f"{EVENTS:,} JSON events of 25 features from one partition, not compressed, in windows of {speed.WINDOW:,}. "
        "Bare: the client alone, which takes each value and does not look at it. Start-up is left out."
    )
    document.write("kafka_speed", "Speed over Kafka", document.command(), [body, document.table(head, rows)])


if __name__ == "__main__":
    main()
