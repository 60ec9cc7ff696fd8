"""What counts as a checkpoint: everything that every rank listed, and nothing less."""

import json
import shutil
from pathlib import Path

import pytest

from raymdm.config import Config
from raymdm.config.paths import without_keys
from raymdm.errors import CheckpointError, UnreachableError
from raymdm.training.checkpoint import Keeping
from raymdm.training.checkpoint_store import CheckpointStore, checkpoint_name, sizes_of


@pytest.fixture(params=["path", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    if request.param == "path":
        return CheckpointStore(str(tmp_path / "store"))
    name = request.node.name.replace("[", "-").replace("]", "")
    return CheckpointStore(request.getfixturevalue("bucket").format(name))


def _write(store: CheckpointStore, folder: Path, step: int, ranks: int = 2) -> str:
    """A checkpoint of some files by every rank."""
    name = checkpoint_name(step)
    store.clear(name)
    for rank in range(ranks):
        own = folder / f"{step}-{rank}"
        (own / "engine").mkdir(parents=True)
        (own / "engine" / f"states-{rank}.pt").write_bytes(bytes(100 + rank))
        (own / f"progress-{rank}.json").write_text(json.dumps({"step": step}))
        store.upload(own, name, rank, ranks)
    return name


def test_a_store_gives_back_what_was_put_in(store: CheckpointStore, tmp_path: Path) -> None:
    name = _write(store, tmp_path, 7)
    store.download(name, tmp_path / "back")
    assert {
        file: size
        for file, size in sizes_of(tmp_path / "back").items()
        if not file.startswith("rank-")
    } == {
        "engine/states-0.pt": 100,
        "engine/states-1.pt": 101,
        "progress-0.json": 11,
        "progress-1.json": 11,
    }
    assert json.loads(store.read(name, "progress-1.json")) == {"step": 7}


def test_the_newest_whole_one_counts(store: CheckpointStore, tmp_path: Path) -> None:
    assert store.newest() is None
    for step in (9, 100, 20):
        _write(store, tmp_path, step)
    assert store.newest() == checkpoint_name(100)
    assert store.names() == store.whole() == [checkpoint_name(step) for step in (9, 20, 100)]


@pytest.mark.parametrize(
    "cut",
    ["engine/states-0.pt", "engine/states-1.pt", "progress-1.json", "rank-0.json", "rank-1.json"],
)
def test_one_that_lacks_any_file_is_none(tmp_path: Path, cut: str) -> None:
    store = CheckpointStore(str(tmp_path / "store"))
    good, bad = _write(store, tmp_path, 1), _write(store, tmp_path, 2)
    Path(store.folder(bad), cut).unlink()
    assert not store.is_whole(bad)
    assert store.newest() == good


def test_one_with_a_file_cut_short_is_none(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "store"))
    name = _write(store, tmp_path, 1)
    Path(store.folder(name), "engine/states-1.pt").write_bytes(bytes(100))
    assert store.newest() is None


def test_a_list_cut_short_is_none(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "store"))
    name = _write(store, tmp_path, 1)
    listed = Path(store.folder(name), "rank-1.json")
    listed.write_text(listed.read_text()[:-3])
    assert store.newest() is None


def test_ranks_of_an_earlier_attempt_do_not_make_one_whole(tmp_path: Path) -> None:
    """Four workers were cut short; two write the same step again, and one of them is."""
    store = CheckpointStore(str(tmp_path / "store"))
    name = _write(store, tmp_path / "four", 1, ranks=4)
    store.clear(name)
    assert not store.is_whole(name)
    own = tmp_path / "own"
    own.mkdir()
    store.upload(own, name, 0, 2)
    assert not store.is_whole(name)
    store.upload(own, name, 1, 2)
    assert store.is_whole(name)


def test_nothing_to_upload_seals_nothing(store: CheckpointStore, tmp_path: Path) -> None:
    """As where an upload is tried again after its files were removed."""
    name = checkpoint_name(1)
    store.clear(name)
    with pytest.raises(FileNotFoundError):
        store.upload(tmp_path / "gone", name, 0, 1)
    assert store.newest() is None


def test_a_list_that_cannot_be_read_is_no_reason_to_call_it_cut_short(tmp_path: Path) -> None:
    """A store that does not answer must not cost a good checkpoint."""
    store = CheckpointStore(str(tmp_path / "store"))
    name = _write(store, tmp_path, 1)
    listed = Path(store.folder(name), "rank-1.json")
    listed.unlink()
    listed.symlink_to(listed)  # there, but opening it fails
    store_sizes = {**sizes_of(Path(store.folder(name))), "rank-1.json": 1}
    store._sizes = lambda _: store_sizes  # type: ignore[method-assign]
    with pytest.raises(UnreachableError):
        store.is_whole(name)


def test_one_removed_halfway_is_not_whole(tmp_path: Path) -> None:
    """Its lists go first."""
    store = CheckpointStore(str(tmp_path / "store"))
    name = _write(store, tmp_path, 1)
    copy = tmp_path / "copy"
    shutil.copytree(store.folder(name), copy)
    store.drop(name)
    assert store.names() == []
    store.drop(name)  # once more does nothing
    shutil.copytree(copy, store.folder(name), ignore=shutil.ignore_patterns("rank-*"))
    assert store.newest() is None


def test_a_place_that_no_library_knows_is_refused() -> None:
    with pytest.raises(CheckpointError, match="nowhere://bucket"):
        CheckpointStore("nowhere://bucket/run")


def _scores(**by_step: float | None) -> dict[str, float | None]:
    return {checkpoint_name(int(step[1:])): score for step, score in by_step.items()}


@pytest.mark.parametrize(
    ("sections", "kept"),
    [
        ({}, [50]),
        ({"checkpoints": {"last": 2}}, [40, 50]),
        ({"checkpoints": {"last": 9}}, [10, 20, 30, 40, 50]),
        ({"checkpoints": {"milestone_every": 20}}, [20, 40, 50]),
        ({"keep": "best"}, [20, 50]),
        ({"keep": "best", "checkpoints": {"milestone_every": 30}}, [20, 30, 50]),
        ({"keep": "all"}, [10, 20, 30, 40, 50]),
    ],
)
def test_the_configuration_says_which_stay(sections: dict, kept: list[int]) -> None:
    scores = _scores(_10=3.0, _20=1.0, _30=2.0, _40=None, _50=1.5)
    dropped = Keeping.of(Config.model_validate(sections)).dropped(scores)
    assert [name for name in scores if name not in dropped] == [checkpoint_name(s) for s in kept]


def test_keys_in_an_address_are_not_shown() -> None:
    """They would otherwise end in logs and reports."""
    secret = "s3://AKIA:hush@runs/one?region=us-east-1"
    assert without_keys(f"{secret}: no such bucket") == (
        "s3://runs/one?region=us-east-1: no such bucket"
    )
    assert without_keys("s3://runs/mail@home, /tmp/a@b") == "s3://runs/mail@home, /tmp/a@b"
    assert CheckpointStore(secret).place == "s3://runs/one?region=us-east-1"
    with pytest.raises(CheckpointError) as refused:
        CheckpointStore("nothing://AKIA:hush@runs/one")
    assert "hush" not in without_keys(str(refused.value))
