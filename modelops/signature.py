"""Standard Webhooks: whether a message was signed with one of our keys, and lately.

The library `standardwebhooks` takes one key and reads the machine's clock itself; several keys at once and a given time
are a few lines, which the tests compare with it.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from modelops.errors import ConfigError, Refused

REPLAY_WINDOW_S = 300.0
PREFIX = "whsec_"


def decode_key(secret: str) -> bytes:
    """The key of a secret: base64, with or without `whsec_`. Raises ConfigError, which does not show it."""
    try:
        key = base64.b64decode(secret.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(_BAD_SECRET) from error
    if not key:
        raise ConfigError(_BAD_SECRET)
    return key


def verify(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, *, now_s: float) -> str:
    """The `webhook-id` of a message that one of the keys signed within 5 minutes. Raises Refused.

    Every signature is compared with every key in constant time.
    """
    webhook_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "")
    if not (webhook_id and timestamp and signatures):
        raise Refused(401, "`webhook-id`, `webhook-timestamp` and `webhook-signature` must be given. Sign the webhook.")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        raise Refused(401, "`webhook-timestamp` must be whole epoch seconds.")
    if abs(now_s - int(timestamp)) > REPLAY_WINDOW_S:
        raise Refused(401, "`webhook-timestamp` must lie within 5 minutes of now. Compare both machines' clocks.")
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    expected = [b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    given = signatures.encode("utf-8", "replace").split()[:16]
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    if not any(matches):
        raise Refused(401, "`webhook-signature` must be made with a key of this receiver; it is not.")
    return webhook_id


_BAD_SECRET = (
    "a webhook secret must be base64, with or without `whsec_` in front; got something else (not shown). "
    "Make one with `openssl rand -base64 32`."
)
