"""The command line. Exit codes: 0 ok, 1 drift found by `replay --fail-on-drift`, 2 usage or config, 3 failure."""

import argparse
import contextlib
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from driftwatch.errors import ConfigError, DriftwatchError, SinkError
from driftwatch.outbox import SetAside

if TYPE_CHECKING:
    from driftwatch.config import Config

USAGE = """\
driftwatch tells when the data of a model in production no longer is what the model was built on.
It counts events in windows, judges each window under a declared budget of false alarms, and sends signed webhooks.

  start here     driftwatch demo                                  the whole thing, on made-up data, in two minutes
                 driftwatch init sample.jsonl -o config.yaml      a configuration from a sample of your events
                 driftwatch check -c config.yaml                  what it would find on your own reference
  then           driftwatch replay events.jsonl -c config.yaml    judge a recorded stream
                 driftwatch run -c config.yaml                    the sidecar
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    gc.set_threshold(100_000)  # imports make objects that stay: looking through them costs some 60 ms
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its threads spin, and the matrices are small
    os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "true")  # a second series for each counter
    logging.basicConfig(level=logging.INFO, format="driftwatch: %(message)s", stream=sys.stderr)
    options = parser().parse_args(arguments)
    try:
        code = options.command(options)
    except DriftwatchError as error:
        print(f"driftwatch: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(
        prog="driftwatch", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, does: Callable[[argparse.Namespace], int], says: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=says, description=says[0].upper() + says[1:] + ".")
        made.set_defaults(command=does)
        return made

    def takes_config(made: argparse.ArgumentParser) -> None:
        made.add_argument("-c", "--config", type=Path, required=True, metavar="CONFIG", help="the configuration, YAML")

    made = command("demo", demo, "the main job on a made-up stream: drift, alarm, verified webhook, recovery")
    made.add_argument("--fast", action="store_true", help="end in under a minute")
    made.add_argument(
        "--kafka", nargs="?", const="", metavar="HOST:PORT", help="over this broker, or over a small one of its own"
    )
    made = command("init", init, "write a commented configuration, from a sample of events where one is given")
    made.add_argument("sample", nargs="?", type=Path, metavar="SAMPLE", help="JSONL, CSV or Parquet")
    made.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write it; default: standard output")
    made = command(
        "profile", profile, "build the reference profile; a profile is simulated again for the config's windows"
    )
    made.add_argument("reference", type=Path, metavar="REFERENCE", help="CSV, JSONL, Parquet, *.profile, `state.path`")
    takes_config(made)
    made.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the profile file to write")
    made = command(
        "check", check, "validate the config, then measure on your own reference what it finds and how often it errs"
    )
    takes_config(made)
    made.add_argument("--profile", type=Path, metavar="FILE", help="a profile instead of the configured reference")
    made = command("run", run, "the sidecar: read the source, judge, notify, until it ends or SIGTERM")
    takes_config(made)
    made = command("replay", replay, "the same pipeline over a recorded stream; touches no state, sends nothing")
    made.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="JSONL, CSV or Parquet; several are merged by event time",
    )
    takes_config(made)
    made.add_argument("--json", action="store_true", help="one JSON decision a line")
    made.add_argument("--fail-on-drift", action="store_true", help="exit 1 where an alarm opened")
    made = command("decisions", decisions, "what the store decided; safe beside a running sidecar")
    takes_config(made)
    made.add_argument("--since", metavar="T", help="windows that end after this time, RFC 3339 or epoch seconds")
    made.add_argument("--json", action="store_true", help="one JSON decision a line")
    add_dlq(commands, takes_config)
    command("schema", schema, "the configuration's JSON Schema")
    return top


def add_dlq(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    takes_config: Callable[[argparse.ArgumentParser], None],
) -> None:
    """The commands on what was set aside."""
    says = "messages and webhooks that were set aside: list them, take them out, send them again"
    actions = commands.add_parser("dlq", help=says, description=says).add_subparsers(
        title="actions", metavar="ACTION", required=True
    )
    made = actions.add_parser("list", help="what was set aside, and why")
    made.set_defaults(command=dlq_list)
    takes_config(made)
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    made = actions.add_parser("replay", help="print messages as they came, a line each; put a webhook back")
    made.set_defaults(command=dlq_replay)
    takes_config(made)
    instead = made.add_mutually_exclusive_group()
    instead.add_argument("--webhook", metavar="ID", help="put this webhook back into the outbox, instead")
    instead.add_argument(
        "--to", metavar="TARGET", help="send them there: https://HOST/PATH, kafka://BROKER:PORT/TOPIC, or a topic"
    )


def demo(options: argparse.Namespace) -> int:
    """`driftwatch demo`."""
    from driftwatch import demo as story

    return story.main(fast=options.fast, kafka=options.kafka)


def init(options: argparse.Namespace) -> int:
    """`driftwatch init`."""
    from driftwatch import init_config

    text = init_config.starting_config(options.sample)
    if options.output is None:
        print(text, end="")
        return 0
    try:
        with options.output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{options.output}: the file exists. Choose another name, or remove it.") from error
    except OSError as error:
        raise ConfigError(f"{options.output}: cannot be written: {error.strerror}.") from error
    print(
        f"driftwatch: wrote {options.output}; see what it finds with `driftwatch check -c {options.output}`",
        file=sys.stderr,
    )
    return 0


def profile(options: argparse.Namespace) -> int:
    """`driftwatch profile`."""
    from driftwatch import config, learned, profiles, progress
    from driftwatch.whole_file import replace_file

    settings = config.load(options.config)
    with progress.share_bar("profile") as told:
        if options.reference.suffix == profiles.SUFFIX:
            old = profiles.load_profile(options.reference, codes=True)
            profiles.check_binding(old, settings.event_schema(), str(options.reference))
            made = profiles.simulate_again(old, settings, told)
        elif options.reference == settings.state.path:
            made = learned.build_learned(settings, options.reference, told)
        else:
            made = profiles.build_profile(settings, options.reference, told)
    try:
        replace_file(options.output, made.to_bytes())
    except OSError as error:
        raise ConfigError(f"{options.output}: cannot be written: {error.strerror}.") from error
    sizes = ", ".join(f"{size:,.0f}" for size in made.calibration.sizes)
    what = f"{made.n_rows:,} rows, {len(made.kinds)} features, simulated for windows of {sizes} rows"
    print(f"driftwatch: wrote {options.output}: {what}", file=sys.stderr)
    for warning in profiles.warnings(made, settings):
        print(f"driftwatch: {warning}", file=sys.stderr)
    return 0


def check(options: argparse.Namespace) -> int:
    """`driftwatch check`."""
    from driftwatch import check as checking

    return checking.main(options.config, options.profile)


def run(options: argparse.Namespace) -> int:
    """`driftwatch run`."""
    from driftwatch import scipy_special

    scipy_special.load()  # before the detectors do
    from driftwatch import app, config

    app.run(config.load(options.config), options.config)
    return 0


def replay(options: argparse.Namespace) -> int:
    """`driftwatch replay`."""
    from driftwatch import scipy_special

    scipy_special.load()  # before the detectors do
    from driftwatch import app, config, progress
    from driftwatch.listing import Listing
    from driftwatch.sinks.log import LogSink

    settings = config.load(options.config)
    sink = LogSink(sys.stdout.buffer) if options.json else Listing(sys.stdout)
    try:
        with progress.record_bar("replay") as told:
            outcome = app.replay(settings, options.config, options.files, sink, told)
    except SinkError as error:
        if error.recoverable:
            raise
        raise BrokenPipeError from error  # nobody reads what is printed any more
    print(f"driftwatch: {outcome.in_words()}", file=sys.stderr)
    return 1 if options.fail_on_drift and outcome.opened else 0


def decisions(options: argparse.Namespace) -> int:
    """`driftwatch decisions`."""
    from driftwatch import config, decision
    from driftwatch.listing import Listing
    from driftwatch.store import Store

    settings = config.load(options.config)
    since_s = None if options.since is None else parse_time(options.since)
    if not settings.state.path.exists():
        print(f"driftwatch: no state yet at {settings.state.path}; `driftwatch run` makes it", file=sys.stderr)
        return 0
    with contextlib.closing(Store.open(settings.state.path, model=settings.model.name, read_only=True)) as store:
        listing = Listing(sys.stdout)
        for line in store.decisions(since_s):
            if options.json:
                sys.stdout.buffer.write(line + b"\n")
            else:
                listing.write(decision.decode(line), line)
        sys.stdout.flush()
    return 0


def parse_time(text: str) -> float:
    """Epoch seconds of RFC 3339 text or of a number. Raises ConfigError."""
    with contextlib.suppress(ValueError):
        return float(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"`--since` must be a time such as 2026-11-25T08:00:00Z; got {text!r}.") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def dlq_list(options: argparse.Namespace) -> int:
    """`driftwatch dlq list`."""
    from driftwatch import config, dead_letters, decision

    settings = config.load(options.config)
    n = 0
    for letter in dead_letters.entries(settings.state.path.parent / "dead"):
        n += 1
        entry = {"shard": letter.shard, "position": letter.position, "time": letter.time, "reason": letter.reason}
        entry |= {"detail": letter.detail, "bytes": len(letter.payload)}
        as_json = json.dumps({"message": entry})
        print(
            as_json
            if options.json
            else f"{letter.time}  {letter.shard}@{letter.position}  {letter.reason}: {letter.detail}"
        )
    for aside in webhooks_aside(settings.state.path, settings.model.name):
        n += 1
        message = aside.message
        made = decision.rfc3339(int(message.created_s))
        entry = {"id": message.id, "target": message.target, "created": made, "reason": aside.reason}
        as_json = json.dumps({"webhook": entry})
        print(as_json if options.json else f"{made}  webhook {message.id}: {aside.reason}")
    if not n:
        print("driftwatch: nothing was set aside", file=sys.stderr)
    return 0


def webhooks_aside(path: Path, model: str) -> Iterator[SetAside]:
    """The webhooks that were set aside; none where there is no state."""
    from driftwatch.store import Store

    if path.exists():
        with (
            contextlib.closing(Store.open(path, model=model, read_only=True)) as store,
            contextlib.closing(store.outbox()) as outbox,
        ):
            yield from outbox.list_set_aside()


def dlq_replay(options: argparse.Namespace) -> int:
    """`driftwatch dlq replay`."""
    import time

    from driftwatch import config, dead_letters
    from driftwatch.store import Store

    settings = config.load(options.config)
    if options.to is not None:
        return dlq_send(settings, options.config, options.to)
    if options.webhook is None:
        for letter in dead_letters.entries(settings.state.path.parent / "dead"):
            sys.stdout.buffer.write(letter.payload.rstrip(b"\r\n") + b"\n")
        sys.stdout.flush()
        return 0
    found = [a for a in webhooks_aside(settings.state.path, settings.model.name) if a.message.id == options.webhook]
    if not found:
        raise ConfigError(
            f"`--webhook` must be the id of a webhook that was set aside; got {options.webhook!r}. "
            "See `driftwatch dlq list`."
        )
    with (
        contextlib.closing(Store.open(settings.state.path, model=settings.model.name, read_only=True)) as store,
        contextlib.closing(store.outbox()) as outbox,
    ):
        for aside in found:
            outbox.put_back(aside.message.id, aside.message.target, now_s=time.time())
    print(f"driftwatch: put back {options.webhook}; the running sidecar sends it, or the next start", file=sys.stderr)
    return 0


def dlq_send(settings: "Config", config_path: Path, target: str) -> int:
    """`driftwatch dlq replay --to`."""
    from driftwatch import dead_letters, progress
    from driftwatch.resend import receiver_at, resend

    receiver = receiver_at(target, settings, config_path.parent)
    with progress.record_bar("sent") as told:
        sent, refused = resend(dead_letters.entries(settings.state.path.parent / "dead"), receiver, told)
    print(f"driftwatch: sent {sent:,} messages; they stay among the dead letters", file=sys.stderr)
    if refused:
        raise SinkError(f"`--to` must take every message; {refused:,} were refused as they are.", recoverable=False)
    return 0


def schema(options: argparse.Namespace) -> int:
    """`driftwatch schema`."""
    from driftwatch import config

    print(json.dumps(config.json_schema(), indent=2))
    return 0
