"""Models as files: a library's archive beside a description with its hash. Pickle is never read.

An archive is what the kind's library writes (`estimators`); each refuses what may not be in one.
"""

import hashlib
from pathlib import Path

import msgspec

from modelops.errors import ArtifactError
from modelops.estimators import library as libraries
from modelops.models import Encoding, Model
from modelops.recipe import Format, ModelKind

DESCRIPTION = "model.json"


class Description(msgspec.Struct, frozen=True):
    """What stands beside the archive. `library`: its name and version."""

    kind: ModelKind
    encoding: Encoding
    shift: float
    archive_sha256: str
    library: str
    format: Format = "native"


def save(model: Model, folder: Path) -> str:
    """Writes a model into a folder; the hash that `load` is to be given."""
    library = libraries.of(model.kind, model.format)
    data = library.dumps(model.estimator, folder / library.ARCHIVE)
    sha256 = hashlib.sha256(data).hexdigest()
    described = Description(model.kind, model.encoding, model.shift, sha256, library.version(), model.format)
    text = msgspec.json.format(msgspec.json.encode(described))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / library.ARCHIVE).write_bytes(data)
        (folder / DESCRIPTION).write_bytes(text)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written: {error.strerror}. Free space there.") from error
    return hashlib.sha256(text).hexdigest()


def load(folder: Path, sha256: str) -> Model:
    """Reads a model whose hash the registry knows. Raises ArtifactError where anything differs."""
    described = describe(folder, sha256)
    library = libraries.of(described.kind, described.format)
    path = folder / library.ARCHIVE
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != described.archive_sha256:
        raise ArtifactError(f"{path}: must be what was registered; its hash differs. Do not use it.")
    return Model(library.loads(data, path), described.encoding, described.kind, described.shift, described.format)


def describe(folder: Path, sha256: str) -> Description:
    """What stands beside the archive, without the model's library. Raises ArtifactError."""
    text = _read(folder / DESCRIPTION)
    if hashlib.sha256(text).hexdigest() != sha256:
        raise ArtifactError(f"{folder / DESCRIPTION}: must be what was registered; its hash differs. Do not use it.")
    try:
        return msgspec.json.decode(text, type=Description)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{folder / DESCRIPTION}: must describe a model: {error}.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: the model cannot be read: {error.strerror}. Train it again.") from error
