"""GET and PUT of profiles over real sockets: what is taken, what is refused, and why."""

import http.client
import io
import json
import random
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sidecar import FEATURES, TIME, build, write_config, write_reference

from detectors.profile import Profile
from driftwatch import config, profile_answers, profile_desk, profiles, references
from driftwatch.profile_desk import ProfileDesk
from driftwatch.server import Health, Server
from driftwatch.store import Store
from driftwatch.store_profiles import Assignment, Given

TOKEN = "not a secret either"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db", model="credit") as opened:
        yield opened


@pytest.fixture
def desk(folder: Path, store: Store, profile_bytes: bytes) -> ProfileDesk:
    settings = config.load(write_config(folder, window=TIME))
    schema = profiles.with_hints(settings.event_schema(), Profile.from_bytes(profile_bytes))
    return ProfileDesk(settings, schema, store)


@pytest.fixture
def port(desk: ProfileDesk) -> Iterator[int]:
    with closing(Server("127.0.0.1", 0, CollectorRegistry(), Health(), token=TOKEN)) as server:
        server.answer_profiles(desk)
        yield server.port


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = AUTHORIZED
) -> tuple[int, Any]:
    """Status and answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or "null")


def test_a_profile_that_was_put_is_there_at_once_and_the_same_again_is_no_news(
    port: int, store: Store, profile_bytes: bytes
) -> None:
    assert ask(port, "GET", "/v1/profile/7")[0] == 404
    want = {"id": Profile.from_bytes(profile_bytes).hash, "version": "7", "since": None, "state": "waiting"}
    assert ask(port, "PUT", "/v1/profile/7", profile_bytes) == (201, want)
    assert ask(port, "GET", "/v1/profile/7", headers={}) == (200, want)
    assert ask(port, "PUT", "/v1/profile/7", profile_bytes) == (200, want)
    assert store.given() == [Given("7", str(want["id"]), "", in_use=False)]
    assert store.given_body("7") == profile_bytes


def test_one_in_use_tells_since_when_and_what_it_was_simulated_again_from(
    port: int, store: Store, profile_bytes: bytes
) -> None:
    content_hash = Profile.from_bytes(profile_bytes).hash
    store.assign(Assignment("7", references.ALWAYS, "other"), b"other")
    assert ask(port, "GET", "/v1/profile/7")[1]["since"] is None
    assert ask(port, "PUT", "/v1/profile/7", profile_bytes)[1]["state"] == "waiting"
    store.assign(Assignment("7", 1_700_000_250.0, "simulated", content_hash), b"simulated")
    want = {"id": content_hash, "version": "7", "since": "2023-11-14T22:17:30Z", "state": "in use"}
    assert ask(port, "GET", "/v1/profile/7") == (200, want)
    assert ask(port, "PUT", "/v1/profile/7", profile_bytes) == (200, want)


def test_without_a_version_in_the_path_it_is_the_profiles_and_any_name_may_be_one(
    port: int, profile_bytes: bytes
) -> None:
    assert ask(port, "PUT", "/v1/profile", profile_bytes)[1]["version"] == "1"
    assert ask(port, "PUT", "/v1/profile/a%2Fb%20%C3%A9", profile_bytes)[1]["version"] == "a/b é"
    assert ask(port, "GET", "/v1/profile/a%2Fb%20%C3%A9?x=1")[0] == 200
    assert ask(port, "PUT", f"/v1/profile/{'v' * 257}", profile_bytes)[0] == 400
    unnamed = Profile.from_bytes(profile_bytes)
    unnamed = replace(unnamed, about={**unnamed.about, "version": None}, content_hash="")
    status, problem = ask(port, "PUT", "/v1/profile", unnamed.to_bytes())
    assert (status, problem["detail"].split(" of ")[0]) == (400, "The profile must name a version")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_another_token_or_none_is_refused_and_nothing_is_kept(
    port: int, store: Store, profile_bytes: bytes, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    status, problem = ask(port, "PUT", "/v1/profile/1", profile_bytes, headers)
    assert (status, problem["title"]) == (401, "Unauthorized")
    assert TOKEN not in json.dumps(problem)
    assert store.given() == []


def test_where_no_token_is_configured_nobody_may_put(desk: ProfileDesk, profile_bytes: bytes) -> None:
    with closing(Server("127.0.0.1", 0, CollectorRegistry(), Health())) as server:
        assert ask(server.port, "GET", "/v1/profile/1")[0] == 503  # the sidecar still starts
        server.answer_profiles(desk)
        status, problem = ask(server.port, "PUT", "/v1/profile/1", profile_bytes)
        assert status == 403
        assert "`token_file` of the prometheus sink" in problem["detail"]
        assert ask(server.port, "GET", "/v1/profile/1")[0] == 404


def test_paths_and_methods_that_are_none_are_said_to_be_none(port: int) -> None:
    for path in ("/v1/profiles", "/v1/profile/1/2", "/v1", "/other"):
        assert ask(port, "GET", path)[0] == 404
        assert ask(port, "PUT", path, b"")[0] == 404
    assert ask(port, "PUT", "/metrics", b"")[0] == 405
    assert ask(port, "POST", "/v1/profile/1", b"")[0] == 405
    assert ask(port, "DELETE", "/v1/profile/1")[0] == 405


def test_bytes_that_are_no_profile_are_refused(port: int, store: Store, profile_bytes: bytes) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("meta.npy", b"no array")
    n = len(profile_bytes)
    for body in (b"", b"{}", b"PK\x03\x04", archive.getvalue(), *(profile_bytes[: n * k // 7] for k in range(1, 7))):
        status, problem = ask(port, "PUT", "/v1/profile/1", body)
        assert status == 400, problem
        assert problem["detail"].startswith("The body must be a")
    assert store.given() == []


def test_a_profile_with_any_byte_changed_is_refused_or_is_the_same_in_all_that_counts(
    desk: ProfileDesk, profile_bytes: bytes
) -> None:
    dice, statuses = random.Random(5), []
    for _ in range(30):
        body = bytearray(profile_bytes)
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        statuses.append(desk.put("1", bytes(body)).status)
    assert set(statuses) <= {400, 201, 409}  # dates and attributes in the archive bear on nothing
    assert statuses.count(400) > 22


def test_a_profile_that_cannot_be_judged_on_is_refused_before_the_loop_meets_it(
    port: int, profile_bytes: bytes
) -> None:
    profile = Profile.from_bytes(profile_bytes)
    for broken in (
        replace(profile, counts=profile.counts[:-1], content_hash=""),
        replace(profile, joint_means=profile.joint_means[:-1], content_hash=""),
    ):
        status, problem = ask(port, "PUT", "/v1/profile/1", broken.to_bytes())
        assert (status, problem["detail"][:24]) == (400, "The body must be a profi")


def test_other_features_or_kinds_are_a_conflict_that_names_them(
    tmp_path: Path, desk: ProfileDesk, profile_bytes: bytes
) -> None:
    kinds = {**FEATURES, "y": "categorical"}
    for features, said in (
        (kinds, "y is numeric there, categorical here"),
        ({"x": "numeric", "c": "categorical"}, "y is not configured"),
        ({**FEATURES, "z": "numeric"}, "z is not in the profile"),
    ):
        settings = config.load(write_config(tmp_path, events={"features": features, "prediction": {"kind": "numeric"}}))
        answer = ProfileDesk(settings, settings.event_schema(), desk.store).put("1", profile_bytes)
        assert answer.status == 409
        assert answer.detail is not None
        assert said in answer.detail


def test_a_budget_that_needs_times_is_a_conflict_where_the_profile_has_none(
    tmp_path: Path, desk: ProfileDesk, profile_bytes: bytes
) -> None:
    settings = config.load(write_config(tmp_path, alarms={"budget": "1 per 30d"}))
    profile = Profile.from_bytes(profile_bytes)
    timeless = replace(profile, about={**profile.about, "rows_per_second": None}, content_hash="").to_bytes()
    assert ProfileDesk(settings, desk.schema, desk.store).put("1", timeless).status == 409
    assert ProfileDesk(settings, desk.schema, desk.store).put("1", profile_bytes).status == 201


def test_too_large_a_body_is_refused_unread_and_one_that_unpacks_to_too_much_as_well(
    port: int, profile_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.putrequest("PUT", "/v1/profile/1")
        connection.putheader("Authorization", f"Bearer {TOKEN}")
        connection.putheader("Content-Length", str(profile_answers.MOST_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.putrequest("PUT", "/v1/profile/1")
        connection.putheader("Authorization", f"Bearer {TOKEN}")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        assert connection.getresponse().status == 411
    monkeypatch.setattr(profile_desk, "MOST_UNPACKED", 1000)
    assert ask(port, "PUT", "/v1/profile/1", profile_bytes)[0] == 413


def test_while_the_state_cannot_be_written_it_is_503_and_nothing_is_said_to_be_kept(
    port: int, store: Store, profile_bytes: bytes
) -> None:
    store._database.execute("BEGIN IMMEDIATE")  # another transaction that does not end
    try:
        status, problem = ask(port, "PUT", "/v1/profile/1", profile_bytes)
    finally:
        store._database.execute("ROLLBACK")
    assert status == 503
    assert "state.path" in problem["detail"]
    assert store.given() == []
    assert ask(port, "PUT", "/v1/profile/1", profile_bytes)[0] == 201


def test_what_the_configured_profile_was_is_kept_beside(folder: Path, desk: ProfileDesk, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_reference(other / "reference.csv", seed=5)
    body = build(other, window=TIME)
    assert desk.put("1", body).status == 201
    assert desk.put("2", body).status == 201
    configured = Profile.from_bytes((folder / "reference.profile").read_bytes()).hash
    assert [given.beside for given in desk.store.given()] == [configured, ""]
