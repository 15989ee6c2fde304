"""A state file that is another's, damaged, or not whole says so."""

import os
import random
import sqlite3
from pathlib import Path

import pytest
from test_store import numbered

from driftwatch.errors import StateError
from driftwatch.store import (
    Store,
)
from driftwatch.store_profiles import Assignment
from driftwatch.store_schema import SCHEMA_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def test_each_file_has_an_id_of_its_own(tmp_path: Path) -> None:
    stores = [Store.open(tmp_path / name, model="credit") for name in ("a.db", "b.db")]
    assert stores[0].store_id != stores[1].store_id
    for store in stores:
        store.close()


def test_the_state_of_another_model_is_refused(path: Path) -> None:
    Store.open(path, model="fraud").close()
    for read_only in (False, True):
        with pytest.raises(
            StateError, match=r"must belong to the model 'credit'; got .*state\.db, which is of 'fraud'"
        ):
            Store.open(path, model="credit", read_only=read_only)


@pytest.mark.parametrize(("step", "word"), [(1, "newer"), (-1, "older")])
def test_a_state_of_another_schema_is_refused(path: Path, step: int, word: str) -> None:
    Store.open(path, model="credit").close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + step}")
    database.close()
    with pytest.raises(StateError, match=f"got schema {SCHEMA_VERSION + step} in .*Use the {word} driftwatch"):
        Store.open(path, model="credit")


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE notes (text)")
    database.close()
    with pytest.raises(StateError, match="another program's database"):
        Store.open(path, model="credit")
    database = sqlite3.connect(path)
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]
    database.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"model: {name: credit}\n" * 100)
    for read_only in (False, True):
        with pytest.raises(StateError, match=r"must be a sound driftwatch state; .*not a database.*Move the file away"):
            Store.open(path, model="credit", read_only=read_only)
    assert path.read_bytes() == b"model: {name: credit}\n" * 100


def test_a_reader_makes_no_file(path: Path) -> None:
    with pytest.raises(StateError, match=r"`state.path` must be an existing file"):
        Store.open(path, model="credit", read_only=True)
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_made_and_a_folder_as_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="must lie in a folder that can be made"):
        Store.open(tmp_path / "file" / "state.db", model="credit")
    with pytest.raises(StateError, match="unable to open database file"):
        Store.open(tmp_path, model="credit")


def test_a_name_with_the_marks_of_a_url_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#b%41.db"
    Store.open(path, model="credit").close()
    assert path.exists()


def test_a_damaged_file_raises_a_state_error_wherever_the_damage_lies(path: Path) -> None:
    store = Store.open(path, model="credit")
    for i in range(1, 20):
        store.save(numbered(i, 2_000))
    store.assign(Assignment("3", 0.0, "a"), os.urandom(20_000))
    store.close()
    sound, draw = path.read_bytes(), random.Random(3)
    n_refused = 0
    for _ in range(150):
        damaged, at = bytearray(sound), draw.randrange(len(sound))
        damaged[at : at + draw.choice([1, 64, 4096])] = draw.randbytes(draw.choice([1, 64, 4096]))
        path.write_bytes(damaged)
        try:
            read_everything(path)
        except StateError:
            n_refused += 1
    assert n_refused > 30


@pytest.mark.parametrize(
    ("word", "broken"), [(b"CREATE TABLE seen", b"CRE\xd5TE TABLE seen"), (b"tablealarms", b"tablealar\xffs")]
)
def test_a_damaged_schema_raises_a_state_error_though_its_name_is_no_text(
    path: Path, word: bytes, broken: bytes
) -> None:
    Store.open(path, model="credit").close()
    content = path.read_bytes()
    assert content.count(word) == 1
    path.write_bytes(content.replace(word, broken))
    with pytest.raises(StateError, match="must be a sound driftwatch state"):
        Store.open(path, model="credit")


def test_a_state_that_lost_its_owner_is_refused(path: Path) -> None:
    Store.open(path, model="credit").close()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("DELETE FROM meta")
    database.close()
    with pytest.raises(StateError, match="0 rows in `meta`"):
        Store.open(path, model="credit")


def read_everything(path: Path) -> None:
    store = Store.open(path, model="credit")
    try:
        store.load()
        list(store.decisions())
        [store.profile(assignment.hash) for assignment in store.current()]
        outbox = store.outbox()
        outbox.due(1e18)
        outbox.close()
        store.save(numbered(20))
    finally:
        store.close()


def test_a_new_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    (tmp_path / ".state.db.new").write_bytes(b"what a kill left")
    Store.open(path, model="credit").close()
    assert not (tmp_path / ".state.db.new").exists()
    store = Store.open(path, model="credit", read_only=True)
    assert list(store.decisions()) == []
    store.close()
