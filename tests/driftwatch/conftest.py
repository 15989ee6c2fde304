"""Profiles that are built once, and a folder to run in."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def profile_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The profile of the small model: fits count windows of 250 and time windows of 250 s."""
    import sidecar  # here, since most tests of this folder need none of it

    folder = tmp_path_factory.mktemp("profile")
    sidecar.write_reference(folder / "reference.csv")
    return sidecar.build(folder, window=sidecar.TIME)


@pytest.fixture(scope="session")
def labelled_profile(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The profile of the small model with labels, for the same windows."""
    import labelled

    return labelled.build(tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def folder(tmp_path: Path, profile_bytes: bytes) -> Path:
    """A folder that holds the profile."""
    (tmp_path / "reference.profile").write_bytes(profile_bytes)
    return tmp_path


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.getuid() != 0:
        pytest.skip("mounting a file system of 8 MiB needs root and mount(8)")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mount(8) refused: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def sidecars(folder: Path) -> Iterator[Any]:
    """Makes sidecars over a broker, and kills what is left of them."""
    pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")
    from kafka_sidecar import Sidecars

    made = Sidecars(folder)
    yield made
    for sidecar in made.made:
        sidecar.kill()


@pytest.fixture
def kafka(broker: Any) -> str:
    """The address of a broker that keeps what is committed with an offset, and static members."""
    if broker.kind == "tansu":
        pytest.skip("needs a real Kafka: Tansu drops the metadata of commits and takes 20 s for a join")
    address: str = broker.address
    return address
