"""What waits for delivery: the value that the store keeps and the delivery thread takes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One webhook for one target, written in the transaction that decided it.

    `id` is the webhook's: `{alarm id}:{transition}`. `target` names the sink that it is for. `created_s` is machine
    time, epoch seconds; `attempts` counts the deliveries that failed so far.
    """

    id: str
    target: str
    body: bytes
    created_s: float
    attempts: int = 0

    @property
    def alarm(self) -> str:
        """What orders messages: of one target and one alarm, a later message waits for the earlier."""
        return self.id.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A webhook that is not tried any more, and why. `dlq replay` puts it back."""

    message: Message
    reason: str
