"""Models as files: a skops archive beside a description with its hash. Pickle is never read.

A skops archive may name types; only those below are constructed. Everything else is refused, and named.
"""

import hashlib
from pathlib import Path

import msgspec

from modelops.errors import ArtifactError
from modelops.models import Encoding, Model
from modelops.recipe import ModelKind

TRUSTED = (
    "functools.partial",  # of a function that must itself be trusted
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)
"""What our estimators hold beyond the types that skops trusts by itself."""

ARCHIVE, DESCRIPTION = "model.skops", "model.json"


class Description(msgspec.Struct, frozen=True):
    """What stands beside the archive."""

    kind: ModelKind
    encoding: Encoding
    shift: float
    archive_sha256: str
    sklearn: str


def save(model: Model, folder: Path) -> str:
    """Writes a model into a folder; the hash that `load` is to be given."""
    import skops.io
    from sklearn import __version__

    data = skops.io.dumps(model.estimator)
    described = Description(model.kind, model.encoding, model.shift, hashlib.sha256(data).hexdigest(), __version__)
    _trusted(data, folder / ARCHIVE)
    text = msgspec.json.format(msgspec.json.encode(described))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARCHIVE).write_bytes(data)
        (folder / DESCRIPTION).write_bytes(text)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written: {error.strerror}. Free space there.") from error
    return hashlib.sha256(text).hexdigest()


def load(folder: Path, sha256: str) -> Model:
    """Reads a model whose hash the registry knows. Raises ArtifactError where anything differs."""
    import skops.io

    try:
        text, data = (folder / DESCRIPTION).read_bytes(), (folder / ARCHIVE).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{folder}: the model cannot be read: {error.strerror}. Train it again.") from error
    if hashlib.sha256(text).hexdigest() != sha256:
        raise ArtifactError(f"{folder / DESCRIPTION}: must be what was registered; its hash differs. Do not use it.")
    try:
        described = msgspec.json.decode(text, type=Description)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{folder / DESCRIPTION}: must describe a model: {error}.") from error
    if hashlib.sha256(data).hexdigest() != described.archive_sha256:
        raise ArtifactError(f"{folder / ARCHIVE}: must be what was registered; its hash differs. Do not use it.")
    _trusted(data, folder / ARCHIVE)
    estimator = skops.io.loads(data, trusted=list(TRUSTED))
    return Model(estimator, described.encoding, described.kind, described.shift)


def _trusted(data: bytes, path: Path) -> None:
    """Raises ArtifactError where an archive is none, or names a type that is not trusted."""
    import zipfile

    import skops.io

    try:
        unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in TRUSTED]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: must be a skops archive; got {error}. A pickle is never read.") from error
    if unknown:
        raise ArtifactError(f"{path}: must hold trusted types only; got {', '.join(sorted(unknown))}. Do not use it.")
