"""The results of a job's steps as files in its folder: what the subprocess writes and the service reads."""

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from modelops.config import Config
from modelops.errors import DataError
from modelops.job import Job, Searched

Result = TypeVar("Result", bound=msgspec.Struct)
SEARCHED = "search.json"


def job_folder(config: Config, job_id: str) -> Path:
    """Where a job's results lie."""
    return config.state.folder / "jobs" / job_id


def read_searched(config: Config, job_id: str) -> Searched | None:
    """How far a job's search is, or was; None where there is none. Raises DataError."""
    return read_result(job_folder(config, job_id) / SEARCHED, Searched)


def described(config: Config, job: Job) -> dict[str, Any]:
    """A job with how far its search is, where it has one, for JSON. Raises DataError."""
    searched = read_searched(config, job.id)
    found: dict[str, Any] = msgspec.to_builtins(job)
    return found if searched is None else found | {"search": msgspec.to_builtins(searched)}


def read_result(path: Path, shape: type[Result]) -> Result | None:
    """A result from its file; None where it is not there. Raises DataError where it is another's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path}: must hold a step's result: {error}. Remove it to do the step again.") from error


def write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all. Raises DataError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written: {error.strerror}. Free space there.") from error
