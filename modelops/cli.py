"""The command line. Exit codes: 0 ok, 1 the gate refused, 2 usage or configuration, 3 failure."""

import argparse
import contextlib
import json
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelops.config import Config
from modelops.errors import ConfigError, ModelopsError
from modelops.times import rfc3339

if TYPE_CHECKING:
    from modelops.rollout import Rollout

USAGE = """\
modelops turns an alarm of driftwatch into a model that is proven better and in service, or into the reason why not:
webhook -> job -> snapshot -> contract -> training -> gate -> registry -> rollout -> profile back to driftwatch.

  start here     modelops schema > schema.json                      what modelops.yaml may hold
                 modelops schema --recipe > recipe.json             what a recipe may hold
                 modelops train credit -c modelops.yaml --from rows.parquet
                                                                    the first model of `credit`
                 modelops serve -c modelops.yaml                    webhooks, jobs, rollouts and the router
  look           modelops jobs -c modelops.yaml                     what became of each alarm, and why
                 modelops registry list -c modelops.yaml            versions, their lineage, who is champion
                 modelops rollout list -c modelops.yaml             what is being rolled out
  act            modelops rollout start credit 2 -c modelops.yaml   roll version 2 out, without an alarm
                 modelops rollout pause|resume|promote|abort credit -c modelops.yaml
"""


BAR = 20  # characters of a progress bar


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its threads spin between small matrices
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "true")
    logging.basicConfig(level=logging.WARNING, format="modelops: %(message)s", stream=sys.stderr)
    logging.getLogger("modelops").setLevel(logging.INFO)
    options = parser().parse_args(arguments)
    try:
        code = options.command(options)
    except ModelopsError as error:
        print(f"modelops: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(prog="modelops", description=USAGE, formatter_class=raw)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        to: "argparse._SubParsersAction[argparse.ArgumentParser]",
        name: str,
        does: Callable[[argparse.Namespace], int],
        says: str,
    ) -> argparse.ArgumentParser:
        made = to.add_parser(name, help=says, description=says[0].upper() + says[1:] + ".")
        made.set_defaults(command=does)
        made.add_argument("-c", "--config", type=Path, required=True, metavar="CONFIG", help="modelops.yaml")
        return made

    def group(name: str, says: str) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
        return commands.add_parser(name, help=says, description=says).add_subparsers(
            title="actions", metavar="ACTION", required=True
        )

    command(commands, "serve", serve, "the service: webhooks, jobs, rollouts, registry and the router, until SIGTERM")
    made = command(commands, "train", train, "train and register a version now; the first one becomes the champion")
    made.add_argument("model", metavar="MODEL", help="a name in `models`")
    made.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="Parquet, CSV or JSONL instead of the prediction log"
    )
    made.add_argument("--rollout", action="store_true", help="where the gate agrees, begin a rollout")
    made = command(commands, "jobs", jobs, "what became of each alarm, newest first, with the reason")
    made.add_argument("words", nargs="*", metavar="show JOB", help="one job only, also one that has ended")
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    made = command(commands, "predict", predict, "the model server: V1 and V2 endpoints, batching, prediction log")
    made.add_argument("--model", required=True, metavar="MODEL", help="a name in `models`")
    made.add_argument("--version", type=int, metavar="N", help="a fixed version; default: whichever is the champion")
    made.add_argument("--host", default="127.0.0.1", metavar="HOST", help="address to listen on; default 127.0.0.1")
    made.add_argument("--port", type=int, default=8081, metavar="PORT", help="port; default 8081, 0 takes a free one")
    made.add_argument("--managed", action="store_true", help=argparse.SUPPRESS)
    registry = group("registry", "versions and aliases: list them, or mirror them to MLflow")
    made = command(registry, "list", registry_list, "versions with their lineage, newest first")
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    command(registry, "mirror", registry_mirror, "bring MLflow to what the registry says")
    rollout = group("rollout", "rollouts: list, start, pause, resume, promote, abort")
    made = command(rollout, "list", rollout_list, "rollouts, newest first, with what happened in each")
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    made = command(rollout, "start", rollout_start, "roll a registered version out over the champion")
    made.add_argument("model", metavar="MODEL", help="a name in `models`")
    made.add_argument("version", type=int, metavar="VERSION", help="a number of `modelops registry list`")
    for name, says in (
        ("pause", "stay where the rollout is; guardrails go on"),
        ("resume", "go on after a pause"),
        ("promote", "end the observation now, in favour of the challenger"),
        ("abort", "roll back now"),
    ):
        made = command(rollout, name, rollout_command, says)
        made.set_defaults(word=name)
        made.add_argument("model", metavar="MODEL", help="a name in `models`")
    made = command(commands, "expectations", expectations, "a model's contract as a suite of Great Expectations, JSON")
    made.add_argument("model", metavar="MODEL", help="a name in `models`")
    made = commands.add_parser("schema", help="the JSON Schema of modelops.yaml, or of a recipe")
    made.add_argument("--recipe", action="store_true", help="of a recipe")
    made.set_defaults(command=schema)
    made = commands.add_parser("work")  # what the executor starts; no business of a person's
    made.set_defaults(command=work)
    made.add_argument("-c", "--config", type=Path, required=True)
    made.add_argument("job")
    return top


def serve(options: argparse.Namespace) -> int:
    """`modelops serve`."""
    import asyncio

    from modelops import config
    from modelops.serve import serve as run

    asyncio.run(run(config.load(options.config), options.config.absolute()))
    return 0


def train(options: argparse.Namespace) -> int:
    """`modelops train`."""
    from modelops import config, manual

    settings = config.load(options.config)
    settings.model(options.model)
    if options.source is not None and not options.source.exists():
        raise ConfigError(f"`--from` must name a file of labelled rows; there is no {options.source}.")
    if sys.stderr.isatty():
        logging.getLogger("modelops.search").setLevel(logging.WARNING)  # the bar says it
    with state(settings) as database:
        verdict, version = manual.train(settings, database, options.model, options.source, tell)
        print(verdict, file=sys.stderr)
        if version is None:
            return 1
        what = f"version {version.version} of {options.model}"
        if version.parent is None:
            print(f"modelops: {what} is registered, and champion: `modelops serve` answers with it", file=sys.stderr)
        elif options.rollout:
            print(f"modelops: {what} is registered", file=sys.stderr)
            print(begun(manual.start(settings, database, options.model, version.version)), file=sys.stderr)
        else:
            print(f"modelops: {what} is registered; bring it into service by `modelops rollout start`", file=sys.stderr)
    return 0


def begun(rollout: "Rollout") -> str:
    """A rollout that was begun, and where to look."""
    return (
        f"modelops: {rollout.strategy} of version {rollout.challenger} begins, once the service runs: "
        "see `modelops rollout list`"
    )


def tell(step: str, share: float, said: str) -> None:
    """Progress for a person who waits: a bar, and what there is to say."""
    if sys.stderr.isatty():
        bar = "#" * round(BAR * share)
        line = f"\r\x1b[K{step:10} [{bar:{BAR}}] {share:4.0%}  {said}"
        print(line, end="\n" if share >= 1 and not said else "", file=sys.stderr, flush=True)


def jobs(options: argparse.Namespace) -> int:
    """`modelops jobs`, `modelops jobs show JOB`."""
    from modelops import config
    from modelops.job_queue import JobQueue
    from modelops.results import described, read_searched

    settings = config.load(options.config)
    if options.words and (options.words[0] != "show" or len(options.words) != 2):
        raise ConfigError(f"`modelops jobs` must be followed by nothing or by `show JOB`; got {options.words}.")
    with state(settings) as database:
        queue = JobQueue(database, settings.database)
        found = [queue.get(options.words[1])] if options.words else queue.jobs()
        if not found:
            print("modelops: no alarm has come yet", file=sys.stderr)
        for job in found:
            if options.json:
                sys.stdout.buffer.write(msgspec.json.encode(described(settings, job)) + b"\n")
                continue
            version = "" if job.new_version is None else f" -> version {job.new_version}"
            print(f"{rfc3339(int(job.created_s))}  {job.id}  {job.model} {job.version} {job.kind}{version}")
            print(f"    {job.state}: {job.reason or ', '.join(job.done) or 'not begun'}")
            if job.retry_s is not None:
                print(f"    the alarm is open still: tried again at {rfc3339(int(job.retry_s))}")
            if (searched := read_searched(settings, job.id)) is not None:
                print(f"    search: {searched.said}")
    sys.stdout.flush()
    return 0


def predict(options: argparse.Namespace) -> int:
    """`modelops predict`."""
    import asyncio

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small batches: threads cost more than they bring

    from modelops import config
    from modelops import predict as serving
    from modelops.registry import Registry

    settings = config.load(options.config)
    entry = settings.model(options.model)
    if options.managed and options.version is None:
        raise ConfigError("`--managed` must stand beside `--version`.")
    with state(settings) as database:
        wanted = serving.wanted_version(Registry(database, settings.database), options.model, options.version)
        server = serving.ModelServer(options.model, entry, wanted)

        def said(port: int) -> None:
            print(f"modelops: {options.model} answers at http://{options.host}:{port}", file=sys.stderr)

        def is_needed() -> bool:
            return not options.managed or serving.is_named(
                database, settings.database, options.model, options.version, options.port
            )

        asyncio.run(serving.serve(server, host=options.host, port=options.port, said=said, is_needed=is_needed))
    return 0


def registry_list(options: argparse.Namespace) -> int:
    """`modelops registry list`."""
    from modelops import config
    from modelops.registry import Registry

    settings = config.load(options.config)
    with state(settings) as database:
        registry = Registry(database, settings.database)
        for model in settings.models:
            aliases = registry.aliases(model)
            if not (versions := registry.versions(model)):
                print(f"modelops: {model} has no version yet; train one by `modelops train {model}`", file=sys.stderr)
            for version in versions:
                named = [alias for alias, number in aliases.items() if number == version.version]
                if options.json:
                    line = msgspec.to_builtins(version) | {"aliases": named}
                    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
                    continue
                figures = ", ".join(f"{name} {value:.4f}" for name, value in version.metrics.items())
                print(f"{model} {version.version} {' '.join(named)}")
                print(f"    {version.kind}, {version.n_rows:,} rows of snapshot {version.snapshot}; {figures}")
                print(
                    f"    job {version.job}, alarm {version.alarm or 'none'}, after version {version.parent or 'none'}"
                )
    sys.stdout.flush()
    return 0


def registry_mirror(options: argparse.Namespace) -> int:
    """`modelops registry mirror`."""
    from modelops import config, tracking

    os.nice(10)  # nobody waits for it, and what it imports takes seconds
    settings = config.load(options.config)
    with state(settings) as database:
        count = tracking.mirror(database, settings.database, settings.mlflow_uri)
    print(f"modelops: {count} versions and aliases were mirrored to MLflow", file=sys.stderr)
    return 0


def rollout_list(options: argparse.Namespace) -> int:
    """`modelops rollout list`."""
    from modelops import config
    from modelops.rollouts import Rollouts

    settings = config.load(options.config)
    with state(settings) as database:
        found = Rollouts(database, settings.database).rollouts()
        if not found:
            print("modelops: nothing has been rolled out yet", file=sys.stderr)
        for rollout in found:
            if options.json:
                sys.stdout.buffer.write(msgspec.json.encode(rollout) + b"\n")
                continue
            print(f"{rollout.model} {rollout.strategy} {rollout.champion} -> {rollout.challenger}: {rollout.phase}")
            for line in rollout.log:
                print(f"    {line}")
    sys.stdout.flush()
    return 0


def rollout_start(options: argparse.Namespace) -> int:
    """`modelops rollout start`."""
    from modelops import config, manual

    settings = config.load(options.config)
    settings.model(options.model)
    with state(settings) as database:
        print(begun(manual.start(settings, database, options.model, options.version)), file=sys.stderr)
    return 0


def rollout_command(options: argparse.Namespace) -> int:
    """`modelops rollout pause|resume|promote|abort`."""
    from modelops import config
    from modelops.rollouts import Rollouts

    settings = config.load(options.config)
    settings.model(options.model)
    with state(settings) as database:
        rollout = Rollouts(database, settings.database).command(options.model, options.word)
    print(f"modelops: {options.word} of {rollout.id}: the service obeys at its next tick", file=sys.stderr)
    return 0


def expectations(options: argparse.Namespace) -> int:
    """`modelops expectations`."""
    from modelops import config, recipe
    from modelops import expectations as export

    settings = config.load(options.config)
    suite = export.suite(options.model, recipe.load(settings.model(options.model).recipe))
    print(json.dumps(suite.to_json_dict(), indent=2))
    return 0


def schema(options: argparse.Namespace) -> int:
    """`modelops schema`."""
    from modelops import config, settings
    from modelops.recipe import Recipe

    print(json.dumps(settings.json_schema(Recipe) if options.recipe else config.json_schema(), indent=2))
    return 0


def work(options: argparse.Namespace) -> int:
    """A job's steps, as the executor starts them."""
    from modelops import config, worker

    began_s = time.monotonic()

    def told(step: str, share: float, _said: str) -> None:
        if share in (0.0, 1.0):
            print(f"{time.monotonic() - began_s:7.2f} s {step} {'ends' if share else 'begins'}", file=sys.stderr)

    outcome = worker.work(config.load(options.config), options.job, told)
    print(f"modelops: {outcome.kind}: {outcome.report}", file=sys.stderr)
    return 0


@contextlib.contextmanager
def state(settings: Config) -> Iterator[sqlite3.Connection]:
    """The state file, closed at the end."""
    from modelops.state import connect

    with contextlib.closing(connect(settings.database)) as database:
        yield database
