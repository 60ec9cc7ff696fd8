"""Delimiter and syntax tokens keep their marks from the text to the batch."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepared import write_prepared
from tokenizers import processors
from training_files import open_files
from transformers import ByT5Tokenizer

from raymdm.data.collate import collate, collate_rows
from raymdm.data.encoding import Encoder, check_offsets
from raymdm.data.jsonl import index_rows
from raymdm.data.manifest import Manifest, check_marks, read_manifest
from raymdm.data.order import Order
from raymdm.data.rows import TrainingRows
from raymdm.data.schema import row_line
from raymdm.data.stream import StepRows, iterate_steps, read_steps, stream_dataset
from raymdm.data.tokenizer import EOS_TOKEN, train_bpe
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import get_task

BYTES = train_bpe([], 259, "<|mdm_mask|>")
MERGED = train_bpe(["so)####(12", "é#### é#é", "<td>1</td><td>2</td>"] * 50, 320, "<|mdm_mask|>")
PATTERNS = ("####", r"</?td>", r"é+ ?")
CHAT = (
    "<td>{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<td>{% endif %}"
)


def texts_of(encoder: Encoder, tokens: Any) -> list[str]:
    """The texts of the marked tokens."""
    return [encoder.tokenizer.decode([tokens.ids[position]]) for position in tokens.marks]


def overlapping(encoder: Encoder, ids: list[int], text: str) -> list[int]:
    """Tokens that share a byte with a match: a byte-level token has a letter for every byte."""
    matched: set[int] = set()
    for pattern in PATTERNS:
        for match in re.finditer(pattern, text):
            start, stop = (len(text[:end].encode()) for end in match.span())
            matched.update(range(start, stop))
    found, start = [], 0
    for position, token in enumerate(encoder.tokenizer.convert_ids_to_tokens(ids)):
        if not matched.isdisjoint(range(start, start + len(token))):
            found.append(position)
        start += len(token)
    return found


@pytest.mark.parametrize("tokenizer", [BYTES, MERGED], ids=["bytes", "merged"])
@given(text=st.text("#é<>td/( 1🙂", max_size=30))
def test_a_token_is_marked_where_it_shares_a_byte_with_a_match(tokenizer: Any, text: str) -> None:
    encoder = Encoder(tokenizer, "plain")
    (response,) = encoder.marked_responses([text], PATTERNS)
    assert [response.ids] == encoder.responses([text])
    assert response.marks == overlapping(encoder, response.ids[:-1], text)
    (prompt,) = encoder.marked_prompts([text], PATTERNS)
    assert [prompt.ids] == encoder.prompts([text])
    assert prompt.marks == response.marks


def test_a_delimiter_merged_with_its_neighbours_is_marked_whole() -> None:
    encoder = Encoder(MERGED, "plain")
    one, other, none = encoder.marked_responses(["so)####(12", "## ##", "12"], ["####"])
    assert texts_of(encoder, one) == [")####("]
    assert (other.marks, none.marks) == ([], [])
    (apart,) = Encoder(BYTES, "plain").marked_responses(["🙂 #### 7"], ["####"])
    assert apart.marks == [5, 6, 7, 8], "characters, not bytes, are what offsets count"


def test_the_end_of_a_response_is_never_marked() -> None:
    (tokens,) = Encoder(BYTES, "plain").marked_responses(["ab\n"], [r"(?s).*"])
    assert tokens.marks == [0, 1, 2]
    assert len(tokens.ids) == 4


def test_marks_stand_behind_the_start_token() -> None:
    tokenizer = train_bpe([], 259, "<|mdm_mask|>")
    start = (EOS_TOKEN, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{EOS_TOKEN} $A", special_tokens=[start]
    )
    encoder = Encoder(tokenizer, "plain")
    (tokens,) = encoder.marked_prompts(["a<td>"], ["<td>"])
    assert tokens.ids[0] == tokenizer.eos_token_id
    assert texts_of(encoder, tokens) == list("<td>")


def chat(template: str) -> Encoder:
    tokenizer = train_bpe([], 259, "<|mdm_mask|>")
    tokenizer.chat_template = template
    return Encoder(tokenizer, "chat")


def test_only_the_users_text_is_searched_in_a_chat_prompt() -> None:
    encoder = chat(CHAT)
    filled, bare, empty = encoder.marked_prompts(["\n é<td>1 ", "1", ""], ["<td>", "^é"])
    assert filled.marks == list(range(10, 16)), "é has two bytes"
    assert encoder.tokenizer.decode(filled.ids) == "<td>user: é<td>1<td>"
    assert (bare.marks, empty.marks) == ([], [])


def test_all_of_a_chat_prompt_is_searched_where_the_template_rewrites_the_text() -> None:
    encoder = chat("<TD>{{ messages[0].content | upper }}")
    tokens, empty = encoder.marked_prompts(["<td>1", ""], ["<TD>"])
    assert tokens.marks == list(range(8))
    assert empty.marks == list(range(4))


def test_a_tokenizer_without_offsets_is_refused_where_something_is_to_be_marked() -> None:
    slow = ByT5Tokenizer()
    check_offsets(slow, get_task("reasoning_gym:chain_sum"))
    check_offsets(MERGED, get_task("gsm8k"))
    with pytest.raises(ConfigurationError, match=r"slow tokenizer.*set task\.delimiters"):
        check_offsets(slow, get_task("gsm8k"))


def write_marked(path: Path) -> Path:
    """Forty rows, of which few have marks."""
    with open(path, "wb") as file:
        for number in range(40):
            file.write(
                row_line(
                    [5, 6, 7, 8, number % 10, 1],
                    3,
                    f"row-{number}",
                    None,
                    delimiters=[3, 4] if number % 7 == 0 else [],
                    syntax=[number % 3] if number in (3, 20) else [],
                )
            )
    return path


def test_a_row_without_marks_has_no_fields_for_them() -> None:
    marked = json.loads(row_line([1, 2, 3], 2, "a:1", None, delimiters=[2], syntax=[0, 1]))
    assert marked == {
        "input_ids": [1, 2, 3],
        "prompt_length": 2,
        "id": "a:1",
        "delimiters": [2],
        "syntax": [0, 1],
    }
    assert not {"delimiters", "syntax"} & set(json.loads(row_line([1, 2, 3], 2, "a:1", None)))


def test_an_index_knows_whether_any_row_has_marks(tmp_path: Path) -> None:
    assert index_rows(write_marked(tmp_path / "a.jsonl"), 10).marks == {"delimiters", "syntax"}
    plain = write_prepared(tmp_path / "plain")
    assert index_rows(plain / "train.jsonl", 300).marks == frozenset()


def parts_through_ray(
    index: TrainingRows, order: Order, stop: int, workers: int
) -> list[list[Any]]:
    dataset = stream_dataset(index, order, 0, stop, workers, rows_per_block=8)
    dataset.context.execution_options.preserve_order = True

    def consume(shard: Any) -> list[StepRows]:
        return list(iterate_steps(shard.iter_batches, order, 0, workers))

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(consume, dataset.streaming_split(workers, equal=True)))
    return sorted(parts, key=lambda part: part[0].slots[0])


@pytest.mark.ray
def test_streamed_rows_carry_the_marks_of_the_file(ray_cluster: None, tmp_path: Path) -> None:
    """Two workers, in blocks of which some hold no marked row."""
    index = open_files(write_marked(tmp_path / "a.jsonl"))
    order = Order(seed=2, rows=40, batch_size=8)
    seen: set[int] = set()
    for number, part in enumerate(parts_through_ray(index, order, 7, 2)):
        for streamed, read in zip(part, read_steps(index, order, 0, 7, number, 2), strict=True):
            assert streamed.delimiters == read.delimiters
            assert streamed.syntax == read.syntax
            for sample, row in zip(streamed.samples, index.read(streamed.samples), strict=True):
                place = streamed.samples.tolist().index(sample)
                assert streamed.delimiters[place] == row.get("delimiters", [])
                assert streamed.syntax[place] == row.get("syntax", [])
                seen.add(int(sample))
    assert {0, 3, 7, 20} <= seen


@pytest.mark.ray
def test_blocks_of_rows_without_marks_have_no_columns_for_them(
    ray_cluster: None, tmp_path: Path
) -> None:
    order = Order(seed=2, rows=40, batch_size=8)
    plain = open_files(write_prepared(tmp_path / "plain") / "train.jsonl")
    (rows,) = read_steps(plain, order, 0, 1)
    assert rows.delimiters == rows.syntax == [[]] * 8

    def columns(index: TrainingRows) -> Iterator[list[str]]:
        dataset = stream_dataset(index, order, 0, 2, 1, rows_per_block=8)
        for block in dataset.iter_batches(batch_size=1, batch_format="pyarrow"):
            yield [field.name for field in block["rows"].type.value_type]

    base = ["step", "slot", "sample", "input_ids", "prompt_length"]
    assert list(columns(plain)) == [base, base]
    marked = open_files(write_marked(tmp_path / "a.jsonl"))
    assert list(columns(marked)) == [[*base, "delimiters", "syntax"]] * 2


def test_a_batch_holds_the_marks_at_their_positions() -> None:
    rows = collate(
        [[5, 6, 7, 1], [5, 1]],
        [2, 1],
        [8, 9],
        pad_token_id=0,
        eos_token_id=1,
        delimiters=[[2], []],
        syntax=[[0, 1], [0]],
    )
    assert rows.delimiters is not None
    assert rows.syntax is not None
    assert rows.delimiters.tolist() == [[False, False, True, False], [False] * 4]
    assert rows.syntax.tolist() == [[True, True, False, False], [True, False, False, False]]


@pytest.mark.parametrize("pad_supervision", ["none", "eos"])
def test_a_batch_without_marks_is_marked_nowhere(pad_supervision: Any) -> None:
    rows = collate(
        [[5, 6, 7, 1]],
        [2],
        [8],
        pad_token_id=0,
        eos_token_id=1,
        pad_supervision=pad_supervision,
        max_length=6,
    )
    for marks in (rows.delimiters, rows.syntax):
        assert marks is not None
        assert marks.shape == rows.input_ids.shape
        assert not marks.any()


def test_rows_of_a_file_are_collated_with_their_marks(tmp_path: Path) -> None:
    index = open_files(write_marked(tmp_path / "a.jsonl"))
    rows = collate_rows(index.read([20, 7, 1]), [20, 7, 1], pad_token_id=0, eos_token_id=1)
    assert rows.samples == [20, 7, 1]
    assert rows.input_ids[:, 4].tolist() == [0, 7, 1]
    assert rows.delimiters is not None
    assert rows.syntax is not None
    assert rows.delimiters.nonzero().tolist() == [[1, 3], [1, 4]]
    assert rows.syntax.nonzero().tolist() == [[0, 2]]
    assert rows.eligible[:, 3:].all()


def with_counts(manifest: Manifest, **counts: int) -> Manifest:
    train = manifest.splits["train"].model_copy(update=counts)
    return manifest.model_copy(update={"splits": {**manifest.splits, "train": train}})


def test_an_estimator_that_needs_marks_is_refused_data_without_them(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "plain")
    manifest = read_manifest(folder)
    check_marks(folder, manifest)
    with pytest.raises(DataError, match=rf"{folder} has none: set task\.delimiters and prepare"):
        check_marks(folder, manifest, delimiters=True)
    with pytest.raises(DataError, match=rf"{folder} has none: set task\.syntax and prepare"):
        check_marks(folder, manifest, syntax=True)
    check_marks(folder, with_counts(manifest, rows_with_delimiters=1), delimiters=True)
    check_marks(folder, with_counts(manifest, rows_with_syntax=1), syntax=True)


def test_a_manifest_from_before_there_were_marks_has_none(tmp_path: Path) -> None:
    path = write_prepared(tmp_path / "plain") / "manifest.json"
    content = json.loads(path.read_text())
    for split in content["splits"].values():
        del split["rows_with_delimiters"], split["rows_with_syntax"]
    path.write_text(json.dumps(content))
    train = read_manifest(tmp_path / "plain").splits["train"]
    assert (train.rows_with_delimiters, train.rows_with_syntax) == (0, 0)
