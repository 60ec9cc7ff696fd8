"""Pages of sample rollouts and their index."""

from pathlib import Path

import pytest
import torch
from page_reader import Page, check_self_contained

from raymdm.config.decoding import DecodingSection
from raymdm.data.tokenizer import train_bpe
from raymdm.decoding import Trace
from raymdm.models import ModelShape
from raymdm.policy.rows import Rollout
from raymdm.reinforcement.samples import Sample, write_samples
from raymdm.tasks import Example, TaskSpec

EVIL = "<script>alert(1)</script>'\"&"
TASK = TaskSpec("echo", lambda row: Example("", ""), lambda text: text or None, lambda *_: 0.0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["12 = 34"], 270, "<|mdm_mask|>")


def shape(tokenizer) -> ModelShape:
    return ModelShape(
        vocabulary_size=len(tokenizer),
        hidden_size=4,
        layers=1,
        heads=1,
        key_value_heads=1,
        intermediate_size=4,
        mask_token_id=tokenizer.mask_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def sample(tokenizer, item: str, texts: list[str], rewards: list[float], scored=True) -> Sample:
    eos = tokenizer.eos_token_id
    rows = [[*tokenizer(text)["input_ids"], eos] for text in texts]
    length = max(map(len, rows))
    predictions = torch.tensor([row + [eos] * (length - len(row)) for row in rows])
    trace = Trace(
        start=torch.full((length,), tokenizer.mask_token_id),
        states=predictions,
        predictions=predictions,
        confidence=torch.full(predictions.shape, 0.5),
        positions=torch.arange(length),
    )
    rollout = Rollout(tokenizer("3+4=")["input_ids"], trace, 0, 2)
    return Sample(
        rollout, item, EVIL, rewards, [float(r >= 1) for r in rewards] if scored else None
    )


def written(folder: Path, tokenizer, round_: int, samples: list[Sample]) -> Page:
    settings = DecodingSection(response_length=4)
    index = write_samples(folder, round_, samples, tokenizer, shape(tokenizer), TASK, settings)
    assert index == folder / "index.html"
    page = Page(index)
    check_self_contained(page)
    return page


def test_the_index_leads_to_a_page_of_every_sample(tmp_path: Path, tokenizer):
    folder = tmp_path / "samples"
    over = sample(tokenizer, "a/1", ["7", "8"], [1.25, 0.25])
    written(folder, tokenizer, 10, [over])
    page = written(folder, tokenizer, 20, [sample(tokenizer, EVIL, ["8", EVIL], [0.0, 1.0])])
    latest, first = [folder / link["href"] for link in page.all("a")]
    assert first.name.startswith("round-00000010-a-1-rollout-2-")
    assert latest.name.startswith("round-00000020-")
    assert "1 of 2 over-denoised" in page.shown
    assert EVIL in page.shown
    assert page.all("script") == []
    line = page.shown[page.shown.index("a/1, rollout 2") :].split()
    assert line[3:5] == ["0.25", "1.25"]
    assert Page(first).data()["correct"] == [True, False]
    viewer = Page(latest)
    check_self_contained(viewer)
    assert viewer.data()["correct"] == [False, True]
    assert "index.html" in [link["href"] for link in viewer.all("a")]


def test_a_round_that_is_written_again_takes_the_place_of_the_earlier(tmp_path: Path, tokenizer):
    for rewards in ([0.0, 0.5], [0.0, 1.0]):
        page = written(tmp_path, tokenizer, 3, [sample(tokenizer, "x", ["7", "8"], rewards)])
    assert len(page.all("a")) == 1
    assert "Right at the end" in page.shown


def test_without_a_reward_of_that_kind_nothing_says_what_is_right(tmp_path: Path, tokenizer):
    page = written(tmp_path, tokenizer, 1, [sample(tokenizer, "x", ["7"], [0.5], scored=False)])
    assert "Nothing scores this response" in page.shown
    assert "over-denoised" not in page.shown.lower()


def test_a_broken_list_is_begun_anew(tmp_path: Path, tokenizer):
    one = sample(tokenizer, "x", ["7"], [1.0])
    written(tmp_path, tokenizer, 1, [one])
    (tmp_path / "samples.json").write_text("[{")
    assert len(written(tmp_path, tokenizer, 2, [one]).all("a")) == 1
