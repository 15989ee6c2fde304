"""Decisions as a table that a person reads in a terminal."""

from typing import TextIO

from driftwatch.decision import Decision

HEAD = f"{'window end':<20}  {'records':>8}  {'verdict':<12}  {'p':>8}  what"
MOST_NAMES = 4


class Listing:
    """Writes one line a decision, and one more for each alarm that changed in it, with the evidence for its kind."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = False

    def write(self, decision: Decision, line: bytes) -> None:
        """Takes the next decision."""
        if not self._begun:
            print(HEAD, file=self._stream)
            self._begun = True
        print(row(decision), file=self._stream)
        for alarm in decision.alarms:
            if alarm.transition != "continuing":
                names = ", ".join(f"{f.feature} ({f.detector})" for f in alarm.features[:MOST_NAMES])
                print(f"{'':<20}  alarm {alarm.id} {alarm.transition}: {names}", file=self._stream)
            if alarm.transition in ("opened", "updated"):
                for said in alarm.evidence:
                    print(f"{'':<22}  {alarm.kind}: {said}", file=self._stream)


def row(decision: Decision) -> str:
    """One line of the table."""
    p = "" if decision.p_value is None else f"{decision.p_value:.1e}"
    drifting = dict.fromkeys(s.feature for s in decision.scores if s.verdict == "drift")
    what = decision.reason or ", ".join([*drifting][:MOST_NAMES])
    if not what and decision.caution:
        what = "caution: " + ", ".join(decision.caution[:MOST_NAMES])
    window = decision.window
    part = f" part {decision.part}" if decision.part > 1 else ""
    part += " (by labels)" if decision.revision else ""
    end = window.end.removesuffix("Z").replace("T", " ")[:19]
    return f"{end:<20}  {window.n_records:>8}  {decision.verdict:<12}  {p:>8}  {what}{part}".rstrip()
