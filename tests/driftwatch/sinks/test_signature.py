"""The texts of a webhook: body, signature and `Retry-After`; and the targets that are refused unsent."""

import base64
import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftwatch.errors import ConfigError
from driftwatch.sinks.webhook import WebhookTarget, cloud_event, retry_after_s, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW_S = 1_700_000_000.5
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()

VECTOR = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# The signature


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), SECRET + "\n"])
def test_the_signature_is_the_one_that_standard_webhooks_publishes(secret: str) -> None:
    assert sign([secret], *VECTOR) == VECTOR_SIGNATURE


def test_each_secret_signs_so_that_a_receiver_may_know_either() -> None:
    signature = sign([SECRET, OTHER], *VECTOR)
    assert signature == f"{VECTOR_SIGNATURE} {sign([OTHER], *VECTOR)}"
    id, timestamp, body = VECTOR
    for known in (SECRET, OTHER):
        assert verify([known], id, str(timestamp), body, signature, now_s=timestamp)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64!", "geheim", "whsec_MfKQ9r8", "päss"])
def test_a_malformed_secret_is_a_config_error_that_does_not_show_it(secret: str) -> None:
    with pytest.raises(ConfigError, match="`secret` must be base64") as caught:
        sign([secret], *VECTOR)
    bare = secret.removeprefix("whsec_")
    assert not bare or bare not in f"{caught.value!r} {caught.value.__cause__!r}"


@given(st.binary(), st.integers(0, 2**40), st.sampled_from(["id", "timestamp", "body", "secret", "nothing"]))
def test_a_signature_verifies_for_exactly_what_was_signed(body: bytes, timestamp: int, changed: str) -> None:
    signature = sign([SECRET], "a:opened", timestamp, body)
    assert verify(
        [OTHER if changed == "secret" else SECRET],
        "b:opened" if changed == "id" else "a:opened",
        str(timestamp + (changed == "timestamp")),
        body + b"x" if changed == "body" else body,
        signature,
        now_s=timestamp,
    ) == (changed == "nothing")


@pytest.mark.parametrize(("age_s", "fresh"), [(0, True), (300, True), (301, False), (-300, True), (-301, False)])
def test_a_message_verifies_within_five_minutes_of_its_timestamp(age_s: int, fresh: bool) -> None:
    id, timestamp, body = VECTOR
    assert verify([SECRET], id, str(timestamp), body, VECTOR_SIGNATURE, now_s=timestamp + age_s) == fresh


@pytest.mark.parametrize("timestamp", ["", "soon", "-1", "1.5", "١٦١٤٢٦٥٣٣٠", "9" * 5000])
def test_a_timestamp_that_is_no_number_does_not_verify(timestamp: str) -> None:
    assert not verify([SECRET], "id", timestamp, b"", VECTOR_SIGNATURE, now_s=1614265330)


@given(st.text())
def test_any_text_may_come_as_a_signature(signature: str) -> None:
    id, timestamp, body = VECTOR
    given_ones = signature.encode("utf-8", "replace").decode()
    assert verify([SECRET], id, str(timestamp), body, given_ones, now_s=timestamp) == (
        VECTOR_SIGNATURE in given_ones.split()
    )


# The body


def test_a_body_is_a_cloud_event_and_equal_contents_give_equal_bytes() -> None:
    about = {"id": "a:opened", "type": "driftwatch.drift.opened", "source": "driftwatch/credit", "subject": "credit/3"}
    body = cloud_event(**about, time="2026-01-01T00:00:00Z", data={"b": 1, "a": {"y": None, "x": [1.5]}})
    assert body == cloud_event(**about, time="2026-01-01T00:00:00Z", data={"a": {"x": [1.5], "y": None}, "b": 1})
    assert json.loads(body) == about | {
        "specversion": "1.0",
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
        "data": {"a": {"x": [1.5], "y": None}, "b": 1},
    }


# Retry-After


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("7200", 3600.0),
        ("9" * 5000, 3600.0),
        (formatdate(NOW_S + 60, usegmt=True), 59.5),
        (formatdate(NOW_S - 60, usegmt=True), 0.0),
        (formatdate(NOW_S + 90_000, usegmt=True), 3600.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_an_hour(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW_S) == wait_s


@given(st.text())
def test_any_text_may_come_as_retry_after(header: str) -> None:
    wait_s = retry_after_s(header, NOW_S)
    assert wait_s is None or 0 <= wait_s <= 3600


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://hooks.test/", "must be https; got http"),
        ("ftp://hooks.test/", "got scheme 'ftp'"),
        ("https:///path", "host None"),
        ("hooks.test/path", "got scheme ''"),
        ("https://user:pass@hooks.test/", "no user or password"),
        ("https://@hooks.test/", "no user or password"),
        ("https://hooks.test:99999/", "malformed"),
        ("https://hooks.test:0/", "must be https://HOST"),
        ("https://[::1/", "malformed"),
        ("https://hööks.test/", "must be ASCII"),
        ("https://hooks.test/\r\nx: 1", "must be ASCII"),
        ("https://127.0.0.1/", "must lead to a public address; got 127.0.0.1"),
        ("https://169.254.169.254/latest", "must lead to a public address"),
        ("https://[::ffff:10.0.0.1]/", "must lead to a public address"),
    ],
)
def test_a_url_that_cannot_be_posted_to_is_a_config_error(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WebhookTarget(url, [SECRET])
    assert message in str(caught.value)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("secrets", [[], ["not base64!"], [SECRET, ""]])
def test_secrets_that_cannot_sign_are_a_config_error(secrets: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"`secrets?` must"):
        WebhookTarget("https://hooks.test/", secrets)


def test_a_target_shows_neither_url_nor_secret() -> None:
    text = repr(WebhookTarget("https://hooks.test/services/token", [SECRET]))
    assert "token" not in text
    assert SECRET not in text
