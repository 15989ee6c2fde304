"""Profiles that are built once, and a folder to run in."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def profile_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The profile of the small model: fits count windows of 250 and time windows of 250 s."""
    import sidecar  # here, since most tests of this folder need none of it

    folder = tmp_path_factory.mktemp("profile")
    sidecar.write_reference(folder / "reference.csv")
    return sidecar.build(folder, window=sidecar.TIME)


@pytest.fixture
def folder(tmp_path: Path, profile_bytes: bytes) -> Path:
    """A folder that holds the profile."""
    (tmp_path / "reference.profile").write_bytes(profile_bytes)
    return tmp_path
