"""OpenLineage: what a job read and wrote, as START, COMPLETE and FAIL of its steps; to a file unless told otherwise.

Where the environment configures OpenLineage's client (`OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, …), it decides where
events go. A run's id is made of job, step and attempt: a step that goes on after a kill is the same run, and has one
START. Events that cannot be delivered are said in the log and stop nothing.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from modelops.errors import InputsUnavailable, ModelopsError, TooFewLabels
from modelops.job import Job

FILE = "lineage.jsonl"
NAMESPACE = "modelops"
PRODUCER = "https://pypi.org/project/driftwatch-sidecar/"
Step = Literal["snapshot", "training"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file that is read or written. `version`: its content; `columns`: names and types; `rules`: checks that held.

    `namespace`: of what is no file.
    """

    path: Path | str
    version: str | None = None
    n_rows: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    rules: Sequence[str] = ()
    namespace: str = "file"

    @property
    def name(self) -> str:
        """As OpenLineage names it."""
        return str(self.path.absolute()) if isinstance(self.path, Path) else self.path


def topic(brokers: Sequence[str], name: str, partition: int, begin: int, end: int) -> Dataset:
    """A partition's offsets as a dataset, named as OpenLineage names Kafka's topics."""
    return Dataset(name, f"{partition}:{begin}-{end}", end - begin, namespace=f"kafka://{brokers[0]}")


class Lineage:
    """The events of one job. `started` is where it is kept which runs have begun."""

    def __init__(self, job: Job, started: Path, file: Path) -> None:
        self._job = job
        self._started = started
        self._file = file

    @contextmanager
    def run(self, step: Step, inputs: Sequence[Dataset], *, sql: str | None = None) -> Iterator[list[Dataset]]:
        """A step: START before it, COMPLETE with the datasets that were put into the list, or FAIL with the reason.

        While labels are waited for the run goes on.
        """
        outputs: list[Dataset] = []
        begun = self._started / f".{step}.{self._job.attempts}.started"
        if not begun.exists():
            self._emit(step, "START", inputs, (), sql)
            begun.touch()
        try:
            yield outputs
        except (TooFewLabels, InputsUnavailable):
            raise
        except (ModelopsError, MemoryError) as error:
            self._emit(step, "FAIL", inputs, (), sql, error=str(error) or "the process ran out of memory")
            raise
        self._emit(step, "COMPLETE", inputs, outputs, sql)

    def _emit(
        self,
        step: Step,
        state: Literal["START", "COMPLETE", "FAIL"],
        inputs: Sequence[Dataset],
        outputs: Sequence[Dataset],
        sql: str | None,
        error: str | None = None,
    ) -> None:
        import httpx2
        from openlineage.client import event_v2 as events
        from openlineage.client.facet_v2 import error_message_run, job_type_job, parent_run, sql_job

        run: dict[str, Any] = {
            "parent": parent_run.ParentRunFacet(
                parent_run.Run(self._run_id("job")), parent_run.Job(NAMESPACE, self._job.model)
            )
        }
        if error is not None:
            run["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "python")
        job: dict[str, Any] = {"jobType": job_type_job.JobTypeJobFacet("BATCH", "MODELOPS", step.upper())}
        if sql is not None:
            job["sql"] = sql_job.SQLJobFacet(sql, "duckdb")
        event = events.RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            producer=PRODUCER,
            run=events.Run(self._run_id(f"{step}.{self._job.attempts}"), run),
            job=events.Job(NAMESPACE, f"{self._job.model}.{step}", job),
            eventType=events.RunState[state],
            inputs=[_input(dataset) for dataset in inputs],
            outputs=[_output(dataset) for dataset in outputs],
        )
        try:
            client = _client(self._file)
            client.emit(event)
            client.close(timeout=10.0)
        except (OSError, RuntimeError, ValueError, httpx2.HTTPError) as problem:
            log.warning("the lineage event %s of %s is not delivered: %s", state, step, problem)

    def _run_id(self, part: str) -> str:
        from openlineage.client.uuid import generate_static_uuid

        instant = datetime.fromtimestamp(self._job.created_s, UTC)
        return str(generate_static_uuid(instant, f"{self._job.id}.{part}".encode()))


def _client(file: Path) -> Any:
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport

    if any(name.startswith("OPENLINEAGE_") for name in os.environ):
        return OpenLineageClient()
    return OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(file), append=True)))


def _facets(dataset: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    found: dict[str, Any] = {}
    if dataset.version is not None:
        found["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(dataset.version)
    if dataset.columns:
        fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in dataset.columns.items()]
        found["schema"] = schema_dataset.SchemaDatasetFacet(fields)
    return found


def _input(dataset: Dataset) -> Any:
    from openlineage.client import event_v2 as events
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    read: dict[str, Any] = {
        "inputStatistics": statistics.InputStatisticsInputDatasetFacet(dataset.n_rows, _size(dataset.path), 1)
    }
    if dataset.rules:
        assertions = [quality.Assertion(rule, success=True) for rule in dataset.rules]
        read["dataQualityAssertions"] = quality.DataQualityAssertionsDatasetFacet(assertions)
    return events.InputDataset(dataset.namespace, dataset.name, facets=_facets(dataset), inputFacets=read)


def _output(dataset: Dataset) -> Any:
    from openlineage.client import event_v2 as events
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    written: dict[str, Any] = {
        "outputStatistics": statistics.OutputStatisticsOutputDatasetFacet(dataset.n_rows, _size(dataset.path), 1)
    }
    return events.OutputDataset(dataset.namespace, dataset.name, facets=_facets(dataset), outputFacets=written)


def _size(path: Path | str) -> int | None:
    """Bytes of a file; None of a folder, of a topic, or of what is not there."""
    return path.stat().st_size if isinstance(path, Path) and path.is_file() else None
