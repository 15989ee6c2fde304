"""skops archives: only types that a library pins are constructed; everything else is refused, and named."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelops.errors import ArtifactError


def dumps(estimator: Any, trusted: Sequence[str], path: Path) -> bytes:
    """An estimator as an archive that `loads` would read."""
    import skops.io

    data: bytes = skops.io.dumps(estimator)
    _check(data, trusted, path)
    return data


def loads(data: bytes, trusted: Sequence[str], path: Path) -> Any:
    """The estimator of an archive. Raises ArtifactError where it is none, or names a type that is not trusted."""
    import skops.io

    _check(data, trusted, path)
    return skops.io.loads(data, trusted=list(trusted))


def _check(data: bytes, trusted: Sequence[str], path: Path) -> None:
    import skops.io

    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            raise ValueError("other bytes")
        unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in trusted]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: must be a skops archive; got {error}. A pickle is never read.") from error
    if unknown:
        raise ArtifactError(f"{path}: must hold trusted types only; got {', '.join(sorted(unknown))}. Do not use it.")
