"""A trace page: its data, what it says of the item, and that no text of a model is markup."""

import json

import numpy as np
import pytest
import torch
from page_reader import Page, check_self_contained
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from raymdm.data.tokenizer import train_bpe
from raymdm.decoding import Trace
from raymdm.errors import DataError
from raymdm.evaluations.tokens import token_text
from raymdm.evaluations.viewer import ItemTrace, item_trace, page_name, render_trace, write_trace

EVIL = "</script><img src=x onerror=alert(1)>'\"&amp;<!--\u2028\n\x00"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["12 = 34"], 270, "<|mdm_mask|>")


def traced(tokenizer, texts, **settings) -> ItemTrace:
    """A trace whose step s predicts `texts[s]`; half of the masks go at each step, all at the last.

    Right is the text "7".
    """
    eos, mask = tokenizer.eos_token_id, tokenizer.mask_token_id
    rows = [[*tokenizer(text)["input_ids"], eos] for text in texts]
    length = max(map(len, rows))
    predictions = torch.tensor([row + [eos] * (length - len(row)) for row in rows])
    states = predictions.clone()
    for step in range(len(rows) - 1):
        states[step, step % 2 :: 2] = mask
    confidence = torch.full(predictions.shape, 0.5)
    confidence[:, 0] = torch.nan
    trace = Trace(
        start=torch.full((length,), mask),
        states=states,
        predictions=predictions,
        confidence=confidence,
        positions=torch.arange(9, 9 + length),
    )
    return item_trace(
        trace,
        tokenizer,
        tokenizer("3+4=")["input_ids"],
        eos,
        settings.pop("score", lambda text: float(text == "7")),
        **{"item_id": "row-1", "reference_answer": "7", "extract": lambda text: text or None}
        | settings,
    )


def test_a_trace_keeps_every_step_in_the_tokens_of_its_own_lists(tokenizer):
    item = traced(tokenizer, ["12", "7", "34"])
    texts = [
        "".join(item.tokens[token] for token in row if token != item.eos)
        for row in item.predictions
    ]
    assert texts == ["12", "7", "34"] == item.texts == item.answers
    assert item.prompt == "3+4="
    assert [item.ids[token] for token in item.start] == [tokenizer.mask_token_id] * 3
    assert set(item.start) == {item.mask}
    assert item.states[0] == [item.mask, item.predictions[0][1], item.mask]
    assert item.states[-1] == item.predictions[-1]
    assert item.confidence[0] == [None, 0.5, 0.5]
    assert item.positions == [0, 1, 2]


def test_equal_texts_are_scored_once(tokenizer):
    seen = []

    def score(text):
        seen.append(text)
        return float(text == "7")

    item = traced(tokenizer, ["1", "7", "1", "7", "1"], score=score)
    assert seen == ["1", "7"]
    assert item.correct == [False, True, False, True, False]


def test_a_step_is_read_up_to_its_first_eos(tokenizer):
    item = traced(tokenizer, ["7<|endoftext|>99", "7"])
    assert item.texts == ["7", "7"]
    assert item.correct == [True, True]


def test_part_marks_are_not_right(tokenizer):
    assert traced(tokenizer, ["7", "8"], score=lambda text: 0.9).correct == [False, False]


@pytest.mark.parametrize(
    ("texts", "kind", "sentence", "links"),
    [
        (
            ["1", "7", "7", "1", "7", "1"],
            "over",
            "Over-denoised: right at some step, wrong at the end",
            ["#step=2", "#step=5"],
        ),
        (["1", "7", "7"], "right", "Right at the end, and since step 2", ["#step=2"]),
        (
            ["7", "1", "7"],
            "right",
            "Right at the end; first right at step 1, wrong again in between",
            ["#step=1", "#step=3"],
        ),
        (["1", "2"], "wrong", "Wrong at every step", []),
    ],
)
def test_the_top_says_how_the_item_ended_and_links_the_right_steps(
    tokenizer, texts, kind, sentence, links
):
    page = Page(render_trace(traced(tokenizer, texts)))
    assert {"class": f"outcome {kind}"} in page.all("p")
    assert sentence in page.shown
    assert [a["href"] for a in page.all("a")] == links


def test_what_nothing_scores_is_neither_right_nor_wrong(tokenizer):
    item = traced(tokenizer, ["1", "7"], score=None, reference_answer="")
    assert item.correct == [None, None]
    page = Page(render_trace(item))
    assert "Nothing scores this response" in page.shown
    assert page.data()["correct"] == [None, None]


def test_the_data_on_the_page_is_the_trace(tokenizer):
    item = traced(tokenizer, ["12", "7", "34"])
    data = Page(render_trace(item)).data()
    assert data == {name: value for name, value in item.as_json().items() if name in data}
    assert {"ids", "tokens", "states", "predictions", "confidence", "correct", "answers"} <= set(
        data
    )


def test_a_trace_survives_json(tokenizer):
    item = traced(tokenizer, ["12", "7"], settings={"steps": 2, "top_p": None})
    assert ItemTrace(**json.loads(json.dumps(item.as_json()))) == item


def test_the_page_names_everything_that_it_depends_on(tokenizer):
    settings = {"remasking": "running_max", "top_p": None, "stop_at_eos": True}
    page = Page(
        render_trace(
            traced(tokenizer, ["1", "7"], settings=settings, model="runs/one", data="gsm8k test"),
            "../report.html",
        )
    )
    for text in ("row-1", "3+4=", "runs/one", "gsm8k test", "remasking", "running_max", "null"):
        assert text in page.shown
    assert {"href": "../report.html"} in page.all("a")


def test_a_page_fetches_nothing_and_runs_only_its_own_script(tokenizer):
    check_self_contained(Page(render_trace(traced(tokenizer, ["12", "7"]))))


def test_nothing_from_a_model_or_a_file_becomes_markup(tokenizer):
    item = traced(
        tokenizer,
        [EVIL, "7"],
        item_id=EVIL,
        reference_answer=EVIL,
        extract=lambda text: EVIL,
        settings={EVIL: EVIL},
        model=EVIL,
        data=EVIL,
    )
    item.tokens[0] = EVIL
    page = Page(render_trace(item, "report.html"))
    check_self_contained(page)
    assert page.data()["tokens"][0] == EVIL
    assert page.data()["answers"] == [EVIL, EVIL]
    assert page.shown.count("<img src=x onerror=alert(1)>") >= 6


def test_a_lone_surrogate_does_not_stop_the_page(tokenizer, tmp_path):
    item = traced(tokenizer, ["7"], item_id="half \ud83d", reference_answer="\ud83d")
    page = Page(write_trace(tmp_path, item))
    assert "half ?" in page.shown


def test_128_steps_of_512_tokens_stay_small(tokenizer):
    """Of a vocabulary of a thousand tokens, each on half of its steps with a confidence."""
    random = np.random.default_rng(0)
    predictions = random.integers(0, 1000, (128, 512))
    confidence = np.where(random.random((128, 512)) < 0.5, random.random((128, 512)), np.nan)
    item = ItemTrace(
        **traced(tokenizer, ["7"] * 128).as_json()
        | {
            "ids": list(range(1000)),
            "tokens": [f" token{i}" for i in range(1000)],
            "positions": list(range(512)),
            "start": [0] * 512,
            "states": predictions.tolist(),
            "predictions": predictions.tolist(),
            "confidence": np.where(np.isnan(confidence), None, confidence.round(3)).tolist(),
        }
    )
    assert len(render_trace(item).encode()) < 1.2e6


def test_file_names_are_safe_and_differ_where_ids_do():
    ids = ["test/algebra/7.json", "test-algebra-7.json", "../../etc/passwd", "", "…", "A", "a"]
    ids += ["x" * 500, "CON", "half \ud83d"]
    names = [page_name(item) for item in ids]
    assert len({name.lower() for name in names}) == len(ids)
    for name in names:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert not name.startswith((".", "-"))
        assert len(name) < 100
    assert page_name("test/algebra/7.json").startswith("test-algebra-7.json-")


def test_a_folder_that_is_a_file_is_refused_in_one_line(tokenizer, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"cannot write the page .*taken"):
        write_trace(tmp_path / "taken", traced(tokenizer, ["7"]))


def test_tokens_of_bytes_are_shown_as_text_where_they_are_text(tokenizer):
    """The vocabulary holds single bytes only, so that characters come in parts."""
    ids = tokenizer("é €")["input_ids"]
    shown = [token_text(tokenizer, number) for number in ids]
    assert shown == ["⟨C3⟩", "⟨A9⟩", " ", "⟨E2⟩", "⟨82⟩", "⟨AC⟩"]
    assert token_text(tokenizer, tokenizer("\n")["input_ids"][0]) == "\n"
    assert token_text(tokenizer, tokenizer.mask_token_id) == "<|mdm_mask|>"


def test_whole_characters_beside_a_broken_one_stay_readable():
    tokenizer = train_bpe(["a\U0001f642 b\U0001f644"] * 9, 400, "<|mdm_mask|>")
    halves = [token_text(tokenizer, number) for number in range(3, len(tokenizer))]
    assert " b⟨F0⟩⟨9F⟩⟨99⟩" in halves or "b⟨F0⟩⟨9F⟩⟨99⟩" in halves or "⟨F0⟩⟨9F⟩⟨99⟩" in halves
    assert not any("\ufffd" in text for text in halves)


def test_ids_beyond_the_tokenizer_have_their_number(tokenizer):
    assert token_text(tokenizer, 99_999) == "⟨id 99999⟩"


def test_what_cannot_be_seen_has_its_number():
    tokenizer = train_bpe(["x\u202ey\u200dz"] * 9, 400, "<|mdm_mask|>")
    text = "".join(token_text(tokenizer, n) for n in tokenizer("x\u202ey\u200dz")["input_ids"])
    assert text == "x⟨U+202E⟩y⟨U+200D⟩z"


def test_a_word_start_of_a_sentencepiece_vocabulary_is_a_space():
    vocabulary = {"<unk>": 0, "\u2581the": 1, "the": 2, "<0xE2>": 3, "\u2581": 4}
    model = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    model.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")
    assert [token_text(tokenizer, n) for n in range(1, 5)] == [" the", "the", "⟨E2⟩", " "]
