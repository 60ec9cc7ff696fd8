"""The parts of `raymdm prepare` that need no Ray."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from raymdm.data.encoding import Encoder, choose_template
from raymdm.data.manifest import read_manifest
from raymdm.data.schema import TEST_SHARE, prompt_key, reference_text, row_line, split_of
from raymdm.data.sources import CHUNK_ROWS, JsonlSource
from raymdm.data.tokenizer import complete_tokenizer, load_tokenizer, train_bpe, vocabulary_size
from raymdm.data.writer import folder_in_the_making
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import get_task

CORPUS = ["the cat sat on the mat", "the dog sat on 12 logs", "12 + 7=19"] * 20
BYTES_ONLY = train_bpe([], 259, "<|mdm_mask|>")
CHAT = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} bot:{% endif %}"
)


def word_tokenizer(**special: str) -> Any:
    """A Hugging Face tokenizer that puts <s> before and </s> after a text by itself."""
    words = ["<s>", "</s>", "<unk>", "user", "bot", ":", "hello", "world", "[MASK]"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


@given(st.text())
def test_bpe_round_trip(text: str) -> None:
    ids = BYTES_ONLY(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert BYTES_ONLY.decode(ids) == text


def test_bpe_trained(tmp_path: Path) -> None:
    tokenizer = train_bpe(CORPUS, 300, "<|mdm_mask|>")
    tokenizer.save_pretrained(tmp_path / "a")
    train_bpe(CORPUS, 300, "<|mdm_mask|>").save_pretrained(tmp_path / "b")
    same = [(tmp_path / folder / "tokenizer.json").read_bytes() for folder in "ab"]
    assert same[0] == same[1]
    loaded = load_tokenizer(tmp_path / "a")
    assert len(loaded) == vocabulary_size(loaded) <= 300
    special = {loaded.mask_token_id, loaded.eos_token_id, loaded.pad_token_id}
    assert len(special) == 3
    text = "the  cats , it's 1234\n"
    ids = loaded(text)["input_ids"]
    assert loaded.decode(ids) == text
    assert not special & set(ids)
    assert [loaded.decode([i]) for i in loaded("1234")["input_ids"]] == ["1", "2", "3", "4"]


def test_bytes_only_is_one_token_a_character() -> None:
    assert vocabulary_size(BYTES_ONLY) == 259
    assert len(BYTES_ONLY("12 + 7=")["input_ids"]) == 7


def test_mask_token_must_be_its_own() -> None:
    with pytest.raises(ConfigurationError, match=r"prepare\.mask_token"):
        train_bpe([], 259, "<|endoftext|>")


def test_plain_template_keeps_start_and_adds_one_eos() -> None:
    tokenizer = complete_tokenizer(word_tokenizer(bos_token="<s>", eos_token="</s>"), "<mask>")
    encoder = Encoder(tokenizer, "plain")
    assert encoder.prompts(["hello", ""]) == [[0, 6], [0]]
    assert encoder.responses(["world"]) == [[7, 1]]


def test_chat_template_is_tokenized_once() -> None:
    tokenizer = complete_tokenizer(word_tokenizer(bos_token="<s>", eos_token="</s>"), "<mask>")
    tokenizer.chat_template = CHAT
    encoder = Encoder(tokenizer, choose_template(tokenizer, "auto"))
    assert encoder.prompts(["hello\n"]) == [[0, 3, 5, 6, 4, 5]]
    assert choose_template(tokenizer, "plain") == "plain"
    with pytest.raises(ConfigurationError, match="no chat template"):
        choose_template(BYTES_ONLY, "chat")


def test_complete_tokenizer() -> None:
    tokenizer = word_tokenizer(eos_token="</s>")
    before = len(tokenizer)
    completed = complete_tokenizer(tokenizer, "[MASK]")
    assert (completed.mask_token_id, len(completed)) == (8, before), "declared, not added"
    assert completed.pad_token_id == completed.eos_token_id == 1
    added = complete_tokenizer(word_tokenizer(eos_token="</s>"), "<new>")
    assert added.mask_token_id == before
    assert vocabulary_size(added) == before + 1
    with pytest.raises(ConfigurationError, match="no EOS token"):
        complete_tokenizer(word_tokenizer(), "<new>")
    with pytest.raises(ConfigurationError, match="also the EOS"):
        complete_tokenizer(word_tokenizer(eos_token="</s>"), "</s>")


def test_special_text_is_refused() -> None:
    encoder = Encoder(BYTES_ONLY, "plain")
    encoder.refuse_special("fine", "prompt")
    with pytest.raises(DataError, match=r"the prompt contains .*<\|endoftext\|>"):
        encoder.refuse_special("a<|endoftext|>b", "prompt")


def test_missing_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigurationError, match=r"prepare.tokenizer: .*cannot be loaded"):
        load_tokenizer(tmp_path / "none")


def test_split_is_a_function_of_the_prompt() -> None:
    assert prompt_key("a  b\n") == prompt_key("a b")
    keys = [prompt_key(str(number)) for number in range(4000)]
    generated = [split_of(key, "generated", 0.05) for key in keys]
    assert generated.count("test") / 4000 == pytest.approx(TEST_SHARE, abs=0.02)
    assert generated.count("validation") / 4000 == pytest.approx(0.045, abs=0.01)
    assert {split_of(key, "train", 0.0) for key in keys} == {"train"}
    assert {split_of(key, "test", 0.5) for key in keys} == {"test"}
    # The file a row comes from does not change where its prompt belongs.
    for key, split in zip(keys, generated, strict=True):
        assert split == "test" or split == split_of(key, "train", 0.05)


def test_row_line() -> None:
    line = row_line([1, 2], 1, "a:1", reference_text({"é": {2, 1}}))
    assert line.endswith(b"\n")
    row = json.loads(line)
    assert row == {
        "input_ids": [1, 2],
        "prompt_length": 1,
        "id": "a:1",
        "reference": '{"é": [1, 2]}',
    }
    assert list(json.loads(row_line([1, 2], 1, "a:1", None))) == [
        "input_ids",
        "prompt_length",
        "id",
    ]


@pytest.mark.parametrize("rows", [1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_jsonl_chunks_cover_the_file(tmp_path: Path, rows: int, end: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"n": n}) for n in range(rows)) + end)
    source = JsonlSource(str(path))
    task = get_task("gsm8k")
    read = [row for chunk in source.chunks() for row in source.read(chunk, task)]
    assert [row.fields["n"] for row in read] == list(range(rows))
    assert read[-1].place == f"{path}, line {rows}"
    assert read[-1].id == f"rows.jsonl:{rows}"


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    left_over = tmp_path / "deep" / "data.preparing"
    left_over.mkdir(parents=True)
    (left_over / "train.jsonl").write_text("of a killed run")
    with folder_in_the_making(folder) as making:
        assert os.listdir(making) == []
        (making / "train.jsonl").write_text("new")
        assert not folder.exists()
        with (
            pytest.raises(DataError, match="another `raymdm prepare`"),
            folder_in_the_making(folder),
        ):
            pass
    assert (folder / "train.jsonl").read_text() == "new"
    assert not left_over.exists()


def test_failed_run_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with folder_in_the_making(tmp_path / "data") as making:
            (making / "train.jsonl").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "format None"), ('{"format": 99}', "format 99")],
)
def test_broken_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match="raymdm prepare"):
        read_manifest(tmp_path / "none")


def test_a_tokenizer_with_code_of_its_own_is_refused_and_the_flag_named(tmp_path: Path):
    train_bpe(["a b c"], 259, "<|m|>").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    own = {
        "auto_map": {"AutoTokenizer": ["strange.StrangeTokenizer", None]},
        "tokenizer_class": "StrangeTokenizer",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    with pytest.raises(ConfigurationError, match=r"prepare\.trust_remote_code: true"):
        load_tokenizer(tmp_path)
