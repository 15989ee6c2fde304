"""`python -m demo`: 0 where the loop closed, 3 where it did not, 130 where it was interrupted."""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from demo.loop import Loop, NotSeenError


def seed(text: str) -> int:
    """A number that a generator takes."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on; got {text!r}.")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; its exit code."""
    parser = argparse.ArgumentParser(
        prog="demo", description="The whole loop: drift, alarm, retraining, canary, resolved."
    )
    parser.add_argument("--seed", type=seed, default=7, metavar="N", help="of all that is random; default 7")
    parser.add_argument("--json", action="store_true", help="the table as one JSON line at the end of standard output")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Ctrl-C")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us wants the services ended too
    began_s, shown = time.monotonic(), sys.stderr if options.json else sys.stdout

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:6.1f} s  {line}", file=shown, flush=True)

    with tempfile.TemporaryDirectory(prefix="loop-demo-", ignore_cleanup_errors=True) as folder:
        try:
            with Loop(Path(folder), options.seed, say) as loop:
                made = loop.run()
                print("\n".join(loop.table(made)), file=shown, flush=True)
                if options.json:
                    print(json.dumps(made), flush=True)
                if options.keep:
                    say("everything runs on, until Ctrl-C:")
                    for line in loop.where():
                        say(line)
                    while True:
                        loop.look()
                        time.sleep(1.0)
            return 0 if loop.is_closed(made) else 3
        except NotSeenError as error:
            say(f"NOT SEEN    {error}")
            return 3
        except KeyboardInterrupt:
            say("interrupted: the services are ended, the folder is removed")
            return 130


if __name__ == "__main__":
    sys.exit(main())
