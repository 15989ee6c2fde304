"""The profiles that a configuration's `reference` comes to, and which of them a version's windows are counted on."""

import logging
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec

from detectors.profile import Profile
from driftwatch import profiles
from driftwatch.config import Config
from driftwatch.errors import ConfigError
from driftwatch.records import LEARNING, NO_PROFILE, Schema
from driftwatch.store import Remembered, Store
from driftwatch.store_profiles import Assignment
from driftwatch.window import DAY_S, ShardState

log = logging.getLogger("driftwatch")
ALWAYS = -1e300  # an assignment that holds from the beginning

Assigned = dict[str, list[tuple[float, Profile]]]
"""By version: (since, profile) in the order of time."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A profile and the bytes that it is kept as. `origin`: what it was simulated again from; "" = it is as it came."""

    profile: Profile
    data: bytes
    origin: str = ""

    @classmethod
    def of(cls, data: bytes, origin: str = "") -> "Loaded":
        """From a profile file's bytes; the reference's rows stay out of memory."""
        return cls(Profile.from_bytes(data, codes=False), data, origin)


def profiles_for(
    config: Config, config_path: Path, store: Store | None, turned: Callable[[], None]
) -> dict[str, Loaded]:
    """The profiles by version, simulated for the configuration's windows; what the store has is not made again.

    One that was given while the sidecar ran comes before the configuration's. Building and simulating happen in a
    process of their own; meanwhile `turned` is called. Raises ConfigError.
    """
    current = [] if store is None else store.current()
    kept = {a: body for a in current if store is not None and (body := store.profile(a.hash)) is not None}
    old = {a.version: Loaded.of(body, a.origin) for a, body in kept.items()}
    given = {} if store is None else given_profiles(config, config_path, store, old, turned)
    if store is not None and config.reference is not None and config.reference.learn and store.learning() is not None:
        return given  # what is being learned goes on; killed as it was frozen, the file is there before the state
    return given | configured_profiles(config, config_path, old, given.keys(), turned)


def given_profiles(
    config: Config, config_path: Path, store: Store, old: Mapping[str, Loaded], turned: Callable[[], None]
) -> dict[str, Loaded]:
    """The profiles that came while the sidecar ran and are in use; the store forgets those that hold no longer."""
    found = {}
    for version, content_hash, beside, is_used in store.given():
        now, body = configured_content(config, version), store.given_body(version) or b""
        try:
            put = Loaded.of(body)
            profiles.check_binding(put.profile, config.event_schema(), f"the profile {content_hash} that was put")
            why = "the configuration's own profile is another now" if now and now != beside else None
        except (ConfigError, ValueError) as error:
            why = str(error)
        if why is not None:
            log.warning("version %s: the profile %s is used no longer: %s", version, content_hash, why)
            store.take_back(version)
        elif is_used:  # one that waits is taken up by the loop, as when it came
            found[version] = fitting(config, config_path, put, body, old.get(version), turned)
    return found


def configured_profiles(
    config: Config,
    config_path: Path,
    old: Mapping[str, Loaded],
    given: Set[str],
    turned: Callable[[], None],
) -> dict[str, Loaded]:
    """The profiles that the configuration names, of versions for which none is given."""
    reference, version = config.reference, config.model.version
    if reference is None:
        return {}
    if reference.path is not None:
        if version in given:
            return {}
        key = profiles.reference_key(config, reference.path)
        if version in old and old[version].profile.about.get("reference") == key:
            return {version: old[version]}
        return {version: Loaded.of(profiles.in_subprocess(config_path, reference.path, turned))}
    found = {}
    for name, path in named_profiles(config):
        if name not in given:
            named = read_profile(path)
            profiles.check_binding(named.profile, config.event_schema(), str(path))
            found[name] = fitting(config, config_path, named, path, old.get(name), turned)
    return found


def named_profiles(config: Config) -> list[tuple[str, Path]]:
    """(version, file) of the profiles that the configuration names, or has saved after learning."""
    reference = config.reference
    if reference is not None and reference.profile is not None:
        return profile_files(config, reference.profile)
    saved = None if reference is None else reference.save
    if saved is not None and saved.exists() and is_of(read_profile(saved).profile, config.model.version):
        return [(config.model.version, saved)]
    return []


def is_of(profile: Profile, version: str) -> bool:
    """Whether a profile was made for a version."""
    return profile.about.get("version") == version


def configured_content(config: Config, version: str) -> str:
    """The content of the configuration's own profile of a version, as a hash; "" where it names none."""
    reference = config.reference
    if reference is None or reference.learn is not None:
        return ""
    if reference.path is not None:
        return profiles.file_digest(reference.path).hexdigest()[:32] if version == config.model.version else ""
    path = dict(named_profiles(config)).get(version)
    return "" if path is None else read_profile(path).profile.hash


def read_profile(path: Path) -> Loaded:
    """A profile file. Raises ConfigError."""
    return Loaded(profiles.load_profile(path), path.read_bytes())


def profile_files(config: Config, place: Path) -> list[tuple[str, Path]]:
    """(version, file): one file for the configured version, or those of a folder for the versions that they name."""
    if not place.is_dir():
        return [(config.model.version, place)]
    paths = sorted(place.glob(f"*{profiles.SUFFIX}"))
    if not paths:
        raise ConfigError(f"`reference.profile` must hold *{profiles.SUFFIX} files; got none in {place}.")
    return [(str(profiles.load_profile(path).about.get("version")), path) for path in paths]


def fitting(
    config: Config,
    config_path: Path,
    named: Loaded,
    source: Path | bytes,
    old: Loaded | None,
    turned: Callable[[], None],
) -> Loaded:
    """The profile `named`, simulated again from `source` where it was made for other windows or another policy."""
    if profiles.fits(named.profile, config):
        return named
    if old is not None and old.origin == named.profile.hash and profiles.fits(old.profile, config):
        return old
    return Loaded.of(profiles.in_subprocess(config_path, source, turned), named.profile.hash)


def assignments(store: Store, found: Mapping[str, Loaded], remembered: Remembered) -> Assigned:
    """Keeps the profiles in the store; one that comes after others, or after rows, counts from what was seen on."""
    current = {a.version: a for a in store.current()}
    seen_s = max((t for row in remembered.shards.values() for t in _clock_s(row.state)), default=ALWAYS)
    counted = {key.version for key in remembered.panes if key.profile in (NO_PROFILE, LEARNING)}
    for version, loaded in found.items():
        before = current.get(version)
        if before is None or before.hash != loaded.profile.hash:
            since_s = seen_s if before is not None or version in counted else ALWAYS
            since_s = since_s if before is None else max(since_s, before.since_s)
            store.assign(Assignment(version, since_s, loaded.profile.hash, loaded.origin), loaded.data)
    by_hash = {loaded.profile.hash: loaded.profile for loaded in found.values()}
    assigned: Assigned = {}
    for a in store.current():
        if a.version in found:
            profile = by_hash.get(a.hash) or _kept(store, a.hash)
            assigned.setdefault(a.version, []).append((a.since_s, profile))
    return assigned


def known(store: Store, assigned: Assigned, remembered: Remembered) -> list[Profile]:
    """Every profile that a pane may be counted on: those assigned, and those of panes and windows remembered."""
    by_hash = {p.hash: p for pairs in assigned.values() for _, p in pairs}
    needed = {key.profile for key in remembered.panes} | {profile for profile, _ in remembered.labels.windows.values()}
    for content_hash in sorted(needed - {NO_PROFILE, LEARNING} - by_hash.keys()):
        by_hash[content_hash] = _kept(store, content_hash)
    return list(by_hash.values())


def schema_with_hints(config: Config, found: Mapping[str, Loaded]) -> Schema:
    """The events' schema with what the configured version's profile knows of categories and lengths."""
    schema, loaded = config.event_schema(), found.get(config.model.version)
    hinted = schema if loaded is None else profiles.with_hints(schema, loaded.profile)
    for column in hinted.of_kind("embedding"):
        if not column.length:
            raise ConfigError(
                f"`events.features.{column.name}` is an embedding, whose length comes from a profile of version "
                f"{config.model.version!r}; got none. Give `reference.path` or `reference.profile`."
            )
    return hinted


def _kept(store: Store, content_hash: str) -> Profile:
    data = store.profile(content_hash)
    if data is None:
        raise ConfigError(f"`state.path` lacks the profile {content_hash}. Begin with another state file.")
    return Profile.from_bytes(data, codes=False)


def _clock_s(state: bytes) -> Iterable[float]:
    """The largest event times that a shard has shown, but for strays: more than a day past the third of them."""
    times_s = msgspec.msgpack.decode(state, type=ShardState).clock_s
    return (t for t in times_s if t <= times_s[-1] + DAY_S)
