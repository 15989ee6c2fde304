"""The profiles that a configuration's `reference` comes to, and which of them a version's windows are counted on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from detectors.profile import Profile
from driftwatch import profiles
from driftwatch.config import Config
from driftwatch.errors import ConfigError
from driftwatch.records import Schema
from driftwatch.store import Assignment, Remembered, Store
from driftwatch.window import ShardState

ALWAYS = -1e300  # an assignment that holds from the beginning

Assigned = dict[str, list[tuple[float, Profile]]]
"""By version: (since, profile) in the order of time."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A profile and the bytes that it is kept as."""

    profile: Profile
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> "Loaded":
        """From a profile file's bytes; the reference's rows stay out of memory."""
        return cls(Profile.from_bytes(data, codes=False), data)


def profiles_for(
    config: Config, config_path: Path, store: Store | None, turned: Callable[[], None]
) -> dict[str, Loaded]:
    """The profiles by version, simulated for the configuration's windows; what the store has is not made again.

    Building and simulating happen in a process of their own; meanwhile `turned` is called. Raises ConfigError.
    """
    reference = config.reference
    if reference is None:
        return {}
    kept = {} if store is None else {a.version: store.profile(a.hash) for a in store.current()}
    old = {version: Loaded.of(data) for version, data in kept.items() if data is not None}
    if reference.path is not None:
        key, version = profiles.reference_key(config, reference.path), config.model.version
        if version in old and old[version].profile.about.get("reference") == key:
            return {version: old[version]}
        return {version: Loaded.of(profiles.in_subprocess(config_path, reference.path, turned))}
    if reference.profile is None:
        raise ConfigError("`reference.learn` is not yet there. Give `path` or `profile`.")
    return {
        version: fitting(config, config_path, path, old.get(version), turned)
        for version, path in profile_files(config, reference.profile)
    }


def profile_files(config: Config, place: Path) -> list[tuple[str, Path]]:
    """(version, file): one file for the configured version, or those of a folder for the versions that they name."""
    if not place.is_dir():
        return [(config.model.version, place)]
    paths = sorted(place.glob(f"*{profiles.SUFFIX}"))
    if not paths:
        raise ConfigError(f"`reference.profile` must hold *{profiles.SUFFIX} files; got none in {place}.")
    return [(str(profiles.load_profile(path).about.get("version")), path) for path in paths]


def fitting(config: Config, config_path: Path, path: Path, old: Loaded | None, turned: Callable[[], None]) -> Loaded:
    """The profile of a file, simulated again where it was made for other windows or another policy."""
    profile = profiles.load_profile(path)
    profiles.check_binding(profile, config.event_schema(), str(path))
    if profiles.fits(profile, config):
        return Loaded(profile, path.read_bytes())
    if (
        old is not None
        and old.profile.about.get("simulated_from") == profile.hash
        and profiles.fits(old.profile, config)
    ):
        return old
    return Loaded.of(profiles.in_subprocess(config_path, path, turned))


def assignments(store: Store, found: Mapping[str, Loaded], remembered: Remembered) -> Assigned:
    """Keeps the profiles in the store; a profile that replaces another counts from the largest event time seen on."""
    current = {a.version: a.hash for a in store.current()}
    seen_s = max((t for row in remembered.shards.values() for t in _clock_s(row.state)), default=ALWAYS)
    for version, loaded in found.items():
        if current.get(version) != loaded.profile.hash:
            since_s = seen_s if version in current else ALWAYS
            store.assign(Assignment(version, since_s, loaded.profile.hash), loaded.data)
    by_hash = {loaded.profile.hash: loaded.profile for loaded in found.values()}
    assigned: Assigned = {}
    for a in store.current():
        if a.version in found:
            profile = by_hash.get(a.hash) or _kept(store, a.hash)
            assigned.setdefault(a.version, []).append((a.since_s, profile))
    return assigned


def known(store: Store, assigned: Assigned, remembered: Remembered) -> list[Profile]:
    """Every profile that a pane may be counted on: those assigned, and those of the panes that are remembered."""
    by_hash = {p.hash: p for pairs in assigned.values() for _, p in pairs}
    for key in remembered.panes:
        if key.profile and key.profile not in by_hash:
            by_hash[key.profile] = _kept(store, key.profile)
    return list(by_hash.values())


def schema_with_hints(config: Config, found: Mapping[str, Loaded]) -> Schema:
    """The events' schema with what the configured version's profile knows of categories and lengths."""
    schema, loaded = config.event_schema(), found.get(config.model.version)
    return schema if loaded is None else profiles.with_hints(schema, loaded.profile)


def _kept(store: Store, content_hash: str) -> Profile:
    data = store.profile(content_hash)
    if data is None:
        raise ConfigError(f"`state.path` lacks the profile {content_hash}. Begin with another state file.")
    return Profile.from_bytes(data, codes=False)


def _clock_s(state: bytes) -> Iterable[float]:
    return msgspec.msgpack.decode(state, type=ShardState).clock_s
