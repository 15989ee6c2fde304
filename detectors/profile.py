"""A reference turned into what judging needs: grid, basis, joint features, null distributions. To and from bytes.

Driftwatch and modelops both build profiles with this; reading and writing files is theirs.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from zipfile import BadZipFile

import numpy as np

from detectors.basis import Basis
from detectors.calibration import Alarm, Calibration
from detectors.family import Family
from detectors.grid import SPECIAL, Feature, FeatureKind, Grid
from detectors.joint import NormalScores, RandomFeatures, normal_scores
from detectors.performance.kind import Learnt
from detectors.performance.outcome import Outcome, learnt_of

FORMAT = 3
UNREADABLE = (
    *(ArithmeticError, LookupError, OSError, EOFError, RuntimeError, TypeError, BadZipFile, zlib.error),
    AttributeError,  # of a member that is no array
)


@dataclass(frozen=True)
class Profile:
    """What a reference says of each feature, and of a window in which nothing changed.

    `counts`: the reference's rows in each flat cell. `joint_means`: means over the reference of the watched pairs'
    products, then of each sample's random features. `codes`: the reference's cells (rows, features), kept so that
    another window or policy can be simulated later. `about`: free facts (model, version, rows a second …).
    """

    basis: Basis
    counts: np.ndarray
    random_features: Mapping[str, RandomFeatures]
    joint_means: np.ndarray
    joint_blocks: np.ndarray
    codes: np.ndarray
    mmd_rows: int
    calibration: Calibration
    about: Mapping[str, str | float | None]
    n_rows: int
    need: float
    of_feature: np.ndarray
    segments: bool
    periodic: bool
    content_hash: str = ""  # of the bytes that it was read from
    outcome: Outcome | None = None  # where predictions are held against labels

    @property
    def grid(self) -> Grid:
        """The cells."""
        return self.basis.grid

    @cached_property
    def normal_scores(self) -> NormalScores:
        """Scores whose products are summed."""
        return normal_scores(self.basis)

    @cached_property
    def n_pairs(self) -> int:
        """Watched pairs of numeric features."""
        return len(self.normal_scores.pairs[0])

    @cached_property
    def family(self) -> Family:
        """The terms."""
        return Family(self.basis, self.n_pairs, tuple(self.random_features))

    def learnt(self, prediction: str | None) -> Learnt:
        """What the kinds of drift rest on; `prediction`: the column of what the model says, where it is one of ours."""
        outcome = self.outcome
        found = learnt_of(self.basis, self.counts, prediction if outcome is None else outcome.prediction)
        known = None if outcome is None or outcome.performance is None else outcome.performance.labels
        return replace(found, labels=known)

    @property
    def kinds(self) -> dict[str, FeatureKind]:
        """Kind of each feature, in order: a profile is bound to these."""
        return {f.name: f.kind for f in self.grid.features}

    @cached_property
    def hash(self) -> str:
        """Content hash, 32 hex digits."""
        return self.content_hash or hash_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        """A compressed npz archive without pickle; the same profile gives the same bytes."""
        basis, calibration = self.basis, self.calibration
        arrays = {
            "counts": self.counts,
            "joint_means": self.joint_means,
            "joint_blocks": self.joint_blocks,
            "codes": local_codes(self.grid, self.codes),
            "of_feature": self.of_feature,
            "edges": np.concatenate([f.edges for f in self.grid.features if f.edges is not None] or [np.empty(0)]),
            **{f"basis.{name}": getattr(basis, name) for name in BASIS_ARRAYS},
            **{f"calibration.{name}": getattr(calibration, name) for name in CALIBRATION_ARRAYS},
        }
        for name, features in self.random_features.items():
            for part in RANDOM_ARRAYS:
                arrays[f"random.{name}.{part}"] = getattr(features, part)
        meta = {
            "format": FORMAT,
            "features": [
                [
                    *(f.name, f.kind, -1 if f.edges is None else len(f.edges), list(f.categories), f.buckets, f.length),
                    *([True] if f.delayed else []),
                ]
                for f in self.grid.features
            ],
            "samples": list(self.random_features),
            "alarm": [calibration.alarm.k, calibration.alarm.n, calibration.alarm.panes],
            "mmd_rows": self.mmd_rows,
            "about": dict(self.about),
            "n_rows": self.n_rows,
            "need": self.need,
            "segments": self.segments,
            "periodic": self.periodic,
        }
        if self.outcome is not None:
            meta["outcome"], of_outcome = self.outcome.to_meta()
            arrays |= {f"{OF_OUTCOME}{name}": array for name, array in of_outcome.items()}
        text = json.dumps(meta, sort_keys=True).encode()
        out = io.BytesIO()
        np.savez_compressed(out, meta=np.frombuffer(text, np.uint8), **arrays)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, codes: bool = True) -> "Profile":
        """The inverse of `to_bytes`; without `codes` the reference's rows stay out of memory.

        Raises ValueError where the bytes are no profile of this format.
        """
        try:
            return cls._read(data, codes)
        except UNREADABLE as error:
            raise ValueError(
                f"a profile must be whole and of format {FORMAT}; got {error!r}. Build it again."
            ) from error

    @classmethod
    def _read(cls, data: bytes, codes: bool) -> "Profile":
        if data[:4] != b"PK\x03\x04":
            raise ValueError(f"a profile must be a zip archive; got {data[:8]!r}. Build it with `driftwatch profile`.")
        archive = np.load(io.BytesIO(data), allow_pickle=False)
        meta = json.loads(archive["meta"].tobytes())
        if meta["format"] != FORMAT:
            raise ValueError(f"`format` of a profile must be {FORMAT}; got {meta['format']!r}. Build it again.")
        lengths = [max(0, n) for _, _, n, *_ in meta["features"]]
        edges = np.split(archive["edges"], np.cumsum(lengths)[:-1])
        grid = Grid(
            tuple(
                Feature(name, kind, edge if n >= 0 else None, tuple(categories), buckets, length, *delayed)
                for (name, kind, n, categories, buckets, length, *delayed), edge in zip(
                    meta["features"], edges, strict=True
                )
            )
        )
        basis = Basis(grid, **{name: archive[f"basis.{name}"] for name in BASIS_ARRAYS})
        return cls(
            basis=basis,
            counts=archive["counts"],
            random_features={
                name: RandomFeatures(*(archive[f"random.{name}.{part}"] for part in RANDOM_ARRAYS))
                for name in meta["samples"]
            },
            joint_means=archive["joint_means"],
            joint_blocks=archive["joint_blocks"] if codes else np.empty((0, 0), np.float32),
            codes=flat_codes(grid, archive["codes"]) if codes else np.empty((0, 0), np.int32),
            mmd_rows=meta["mmd_rows"],
            calibration=Calibration(
                **{name: archive[f"calibration.{name}"] for name in CALIBRATION_ARRAYS}, alarm=Alarm(*meta["alarm"])
            ),
            about=meta["about"],
            n_rows=meta["n_rows"],
            need=meta["need"],
            of_feature=archive["of_feature"],
            segments=meta["segments"],
            periodic=meta["periodic"],
            content_hash=hash_of(data),
            outcome=None
            if "outcome" not in meta
            else Outcome.from_meta(
                meta["outcome"],
                {name.removeprefix(OF_OUTCOME): archive[name] for name in archive.files if name.startswith(OF_OUTCOME)},
            ),
        )


BASIS_ARRAYS = ("normal", "spread", "spread_sd", "gap", "groups", "group_starts", "cell_rms", "singletons")
CALIBRATION_ARRAYS = ("sizes", "fits", "p_curves", "opening_curves", "pair_sds")
OF_OUTCOME = "outcome."
RANDOM_ARRAYS = ("centre", "inverse_scale", "directions", "phases")


def hash_of(data: bytes) -> str:
    """The content hash of a profile's bytes."""
    return hashlib.sha256(data).hexdigest()[:32]


def local_codes(grid: Grid, codes: np.ndarray) -> np.ndarray:
    """Cells counted within their feature (special ones first), in the smallest integer type; feature by feature."""
    features = np.arange(codes.shape[1])
    special = codes < grid.n_special
    local = np.where(special, codes - SPECIAL * features, codes - grid.n_special - grid.starts + SPECIAL)
    most = int(grid.sizes.max()) + SPECIAL
    return np.asfortranarray(local.astype(np.uint8 if most <= 256 else np.uint16))


def flat_codes(grid: Grid, local: np.ndarray) -> np.ndarray:
    """The inverse of `local_codes`, int32 (rows, features)."""
    local = local.astype(np.int32)
    features = np.arange(local.shape[1], dtype=np.int32)
    flat = np.where(local < SPECIAL, local + SPECIAL * features, local - SPECIAL + grid.n_special + grid.starts)
    return np.ascontiguousarray(flat.astype(np.int32))
