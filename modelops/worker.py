"""The subprocess of a job: it does the steps under a memory limit and leaves an outcome for the executor."""

import fcntl
import os
import resource
from pathlib import Path
from typing import Literal

import msgspec

from modelops import recipe as recipes
from modelops.config import Config
from modelops.errors import ArtifactError, ContractError, InputsUnavailable, ModelopsError, TooFewLabels
from modelops.job_queue import JobQueue
from modelops.recipe import Recipe
from modelops.registry import Registry
from modelops.results import job_folder, read_result, write
from modelops.state import connect
from modelops.steps import RECIPE, Progress, Work


class Outcome(msgspec.Struct, frozen=True):
    """Why the steps ended before the last one, or that they did not."""

    kind: Literal["registered", "labels", "rejected", "failed"]
    report: str
    version: int | None = None


OUTCOME = "outcome.json"
NO_MEMORY = "`training.memory_mib` is too little for this snapshot: the process ran out of memory. Raise it."


def work(config: Config, job_id: str, progress: Progress) -> Outcome:
    """Does a job's steps. What went wrong on purpose is an outcome; what did not kills the process, and is tried again.

    A second process of the same job waits for the first: one that outlived the service ends its steps undisturbed.
    """
    folder = job_folder(config, job_id)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        outcome = _work(config, job_id, progress)
        write(folder / OUTCOME, msgspec.json.encode(outcome))
        return outcome
    finally:
        os.close(descriptor)


def _work(config: Config, job_id: str, progress: Progress) -> Outcome:
    database = connect(config.database)
    try:
        queue = JobQueue(database, config.database)
        job = queue.get(job_id)
        recipe = kept_recipe(config, job.model, job_folder(config, job_id))
        limit = recipe.training.memory_mib << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        steps = Work(config, job, recipe, Registry(database, config.database), progress=progress)
        steps.snapshot()
        steps.contract()
        steps.train()
        steps.job = msgspec.structs.replace(job, kind=queue.get(job_id).kind)  # labels may have spoken meanwhile
        verdict = steps.gate()
        if not verdict.is_better:
            return Outcome("rejected", verdict.report)
        version = steps.run()
        return Outcome("registered", verdict.report, version.version)
    except (TooFewLabels, InputsUnavailable) as error:
        return Outcome("labels", str(error))
    except ContractError as error:
        return Outcome("rejected", str(error))
    except ArtifactError as error:
        return Outcome("rejected", f"a model cannot be used: {error}")
    except ModelopsError as error:
        return Outcome("failed", str(error))
    except MemoryError:
        return Outcome("failed", NO_MEMORY)
    except (ImportError, SystemError):  # what a library makes of it that cannot be loaded any more
        if not _is_full():
            raise
        return Outcome("failed", NO_MEMORY)
    finally:
        database.close()


def _is_full() -> bool:
    """Whether the process has nearly used up its address space."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return resource.getrlimit(resource.RLIMIT_AS)[0] - pages * resource.getpagesize() < 64 << 20


def kept_recipe(config: Config, model: str, folder: Path) -> Recipe:
    """The recipe as it was when the job began: a change meanwhile is the next job's."""

    class Written(msgspec.Struct):
        recipe: str

    kept = read_result(folder / RECIPE, Written)
    if kept is not None:
        return Recipe.model_validate_json(kept.recipe)
    recipe = recipes.load(config.model(model).recipe)
    write(folder / RECIPE, msgspec.json.encode(Written(recipe.model_dump_json())))
    return recipe
