"""`raymdm bench packing`: every way trains on the same rows and masks."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor
from typer.testing import CliRunner

from raymdm import cli
from raymdm.benchmarks import packing as packing_bench
from raymdm.benchmarks.packing import WAYS, Plan, Work, measure_packing, write_gsm8k_lengths
from raymdm.benchmarks.rows import write_random_rows
from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.data.jsonl import index_rows
from raymdm.errors import RunError

TINY = Plan(blocks=2, warm_up=1)
LENGTHS = np.array([6, 12, 8, 30, 10, 7, 20, 9])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    folder = write_random_rows(
        tmp_path / "data", lengths=LENGTHS, prompt_lengths=LENGTHS // 3, vocabulary_size=64
    )
    return validate(
        {
            "data": {"folder": str(folder)},
            "model": {"hidden_size": 16, "layers": 1, "heads": 2},
            "training": {"batch_size": 8, "micro_batch_size": 3, "head_chunk": 4},
        }
    )


def test_all_ways_have_the_same_losses(config: Config) -> None:
    figures = measure_packing(config, TINY, "rows")
    assert 0 <= figures.difference < 1e-5
    assert [way.name for way in figures.ways] == [way.name for way in WAYS]
    assert figures.ways[0].faster.median == 1
    assert all(way.speed > 0 for way in figures.ways)
    assert (figures.rows, figures.micro_batch) == (8, 3)
    assert figures.mean_length == LENGTHS.mean()


def test_ways_that_differ_get_no_ratio(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = packing_bench.masked_cross_entropy

    def less(model, *rest) -> Tensor:  # type: ignore[no-untyped-def]
        return honest(model, *rest) * (0.999 if model.execution.packed else 1.0)

    monkeypatch.setattr(packing_bench, "masked_cross_entropy", less)
    with pytest.raises(RunError, match=r"losses of the ways differ .* no ratio is given"):
        measure_packing(config, TINY, "rows")


def test_computed_positions_are_those_of_the_padded_rows(config: Config) -> None:
    work = Work(config, steps=1)
    computed = {way.name: work.computed(way) for way in WAYS}
    total = LENGTHS.sum()
    assert computed["longest of the step"] == pytest.approx(8 * 30 / total)
    # Sorted: 6 7 8 | 9 10 12 | 20 30.
    assert computed["bucketed"] == pytest.approx((3 * 8 + 3 * 12 + 2 * 30) / total)
    assert computed["bucketed"] < computed["padded"] <= computed["longest of the step"]
    assert computed["packed"] == 1


def test_the_first_way_computes_what_it_says(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every forward of it is as long as the step's longest row, in the others one of three is."""
    widths: dict[str, list[int]] = {}
    honest = packing_bench.masked_cross_entropy
    work = Work(config, steps=1)
    for way in WAYS:
        seen = widths.setdefault(way.name, [])

        def watched(model, ids, *rest, seen=seen) -> Tensor:  # type: ignore[no-untyped-def]
            seen.append(ids.shape[1])
            return honest(model, ids, *rest)

        monkeypatch.setattr(packing_bench, "masked_cross_entropy", watched)
        next(work.steps(way))
    assert widths["longest of the step"] == [30, 30, 30]
    assert widths["bucketed"] == [8, 12, 30]
    assert sorted(widths["padded"])[-1] == 30 > sorted(widths["padded"])[0]


def test_masks_are_on_responses_only(config: Config) -> None:
    (batch,) = Work(config, steps=1).batches
    assert batch.masked.any()
    assert not (batch.masked & ~batch.rows.eligible).any()


def test_drawn_lengths_are_like_those_of_gsm8k(tmp_path: Path) -> None:
    write_gsm8k_lengths(tmp_path / "data")
    index = index_rows(tmp_path / "data" / "train.jsonl", 4096)
    assert index.lengths.mean() == pytest.approx(194.4, rel=0.03)
    assert index.lengths.std() == pytest.approx(72.1, rel=0.05)
    assert index.prompt_lengths.mean() == pytest.approx(67.0, rel=0.03)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    arguments = ["bench", "packing", "--set", f"data.folder={tmp_path / 'nothing'}"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "manifest.json: not found" in result.output
