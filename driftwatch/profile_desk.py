"""`GET` and `PUT` of `/v1/profile/{version}`: which profile a version has, and another one for it.

In the server's threads, over connections to the state file of their own: the loop finds there what was put.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np

from detectors.profile import UNREADABLE, Profile
from detectors.summary import Table
from driftwatch import profiles, references
from driftwatch.config import Config
from driftwatch.count import ProfileCounter
from driftwatch.decision import rfc3339
from driftwatch.errors import ConfigError, StoreUnavailable
from driftwatch.monitor import Monitor
from driftwatch.profile_answers import MOST_UNPACKED, Answer, too_large
from driftwatch.records import Schema, Stream, Window
from driftwatch.store import Store
from driftwatch.store_profiles import Given, StoredProfiles

LONGEST_VERSION = 256


@dataclass(frozen=True, slots=True)
class ProfileDesk:
    """Answers for one model. `schema`: as events are decoded, with the lengths of embeddings."""

    config: Config
    schema: Schema
    store: Store

    def get(self, version: str) -> Answer:
        """Which profile a version has."""
        try:
            with self.store.profiles() as kept:
                shown = self._shown(kept, version)
        except StoreUnavailable as error:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, detail=str(error), headers={"Retry-After": "1"})
        if shown is None:
            return Answer(HTTPStatus.NOT_FOUND, detail=f"Version {version!r} has no profile.")
        return Answer(HTTPStatus.OK, shown)

    def put(self, version: str, body: bytes) -> Answer:
        """Keeps a profile for a version, "" for the one that it names; once it is answered it is stored."""
        found = self._read(body)
        if isinstance(found, Answer):
            return found
        version = version or str(found.about.get("version") or "")
        if not 0 < len(version) <= LONGEST_VERSION:
            detail = f"The profile must name a version of 1 to {LONGEST_VERSION} characters, or the path must."
            return Answer(HTTPStatus.BAD_REQUEST, detail=detail)
        try:
            with self.store.profiles() as kept:
                shown = self._shown(kept, version)
                if shown is not None and shown["id"] == found.hash:
                    return Answer(HTTPStatus.OK, shown)
                beside = references.configured_content(self.config, version)
                kept.give(Given(version, found.hash, beside, in_use=False), body)
                return Answer(HTTPStatus.CREATED, self._shown(kept, version) or {})
        except (StoreUnavailable, ConfigError) as error:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, detail=str(error), headers={"Retry-After": "1"})

    def _read(self, body: bytes) -> Profile | Answer:
        """The profile, or why it cannot be used."""
        try:
            unpacked = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(body)).infolist())
            if unpacked > MOST_UNPACKED:
                return too_large(f"{unpacked:,} unpacked")
            profile = Profile.from_bytes(body, codes=True)
        except (*UNREADABLE, ValueError, zlib.error) as error:
            detail = f"The body must be a whole profile file, as `driftwatch profile` writes it: {error}"
            return Answer(HTTPStatus.BAD_REQUEST, detail=detail)
        try:
            profiles.check_binding(profile, self.schema, "body")
            self._check_lengths(profile)
            rate = profiles.rate_per_window(self.config, profile)
        except ConfigError as error:
            return Answer(HTTPStatus.CONFLICT, detail=str(error))
        try:
            self._try(profile, rate)
        except (*UNREADABLE, ValueError) as error:
            detail = f"The body must be a profile that windows can be judged on; got {error!r}. Build it again."
            return Answer(HTTPStatus.BAD_REQUEST, detail=detail)
        return profile

    def _check_lengths(self, profile: Profile) -> None:
        """Raises ConfigError where an embedding is of another length than events are decoded with."""
        of = {feature.name: feature.length for feature in profile.grid.features}
        for column in self.schema.of_kind("embedding"):
            if of[column.name] != column.length:
                raise ConfigError(
                    f"body: the embedding {column.name} must have {column.length} numbers, as the configured version "
                    f"has; got {of[column.name]}. Run a sidecar of its own for such a version."
                )

    def _try(self, profile: Profile, rate: float) -> None:
        """Counts nothing and judges the reference itself: what a broken profile fails at must not fail in the loop."""
        counted = ProfileCounter(profile, self.schema).empty()
        table = Table(profile.counts.astype(np.int64), counted.sums, counted.samples)
        stream = Stream(self.config.model.name, self.config.model.version)
        window = Window(stream, 0.0, 1.0, profile.n_rows, table, profile.hash)
        Monitor({profile.hash: (profile, rate)}, min_records=1).judge(window)

    def _shown(self, kept: StoredProfiles, version: str) -> dict[str, str | None] | None:
        """Id, version and since when; a profile that is not in use yet has no time."""
        given = next((g for g in kept.given() if g.version == version), None)
        if given is not None and not given.in_use:
            return {"id": given.hash, "version": version, "since": None, "state": "waiting"}
        assigned = [a for a in kept.current() if a.version == version]
        if not assigned:
            return None
        a = assigned[-1]
        since = None if a.since_s <= 0 else rfc3339(a.since_s)
        return {"id": a.origin or a.hash, "version": version, "since": since, "state": "in use"}
