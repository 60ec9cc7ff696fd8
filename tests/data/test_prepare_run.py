"""`raymdm prepare` as a user runs it, through Ray Data."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import typer
from transformers import ByT5Tokenizer
from typer.testing import CliRunner, Result

from raymdm.config.loading import load_config
from raymdm.data.encoding import load_encoder
from raymdm.data.manifest import read_manifest
from raymdm.data.schema import SPLITS, prompt_key
from raymdm.prepare import main, prepare
from raymdm.tasks import get_task

pytestmark = pytest.mark.ray

GSM8K = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gsm8k"
SMALL = ["prepare.train_rows=300", "prepare.test_rows=40"]
BYTES = ["prepare.vocabulary_size=259", "prepare.max_length=64"]

Run = Callable[..., Result]


@pytest.fixture
def run(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the verb on `tmp_path/out`; keys as `--set` takes them."""
    monkeypatch.chdir(tmp_path)
    application = typer.Typer()
    application.command()(main)

    def call(*keys: str, config: str = "tasks/addition", imports: str | None = None) -> Result:
        arguments = ["--config", config, "--set", "data.folder=out"]
        arguments += [part for key in keys for part in ("--set", key)]
        arguments += ["--import", imports] if imports else []
        return CliRunner().invoke(application, arguments)

    return call


def refused(result: Result) -> str:
    """The one line of a refusal."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert not Path("out").exists()
    return lines[0]


def rows_of(split: str, folder: str = "out") -> list[dict[str, Any]]:
    text = (Path(folder) / f"{split}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def write_rows(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def problems(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"question": f"{n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"}
        for n in range(first, last)
    ]


def test_generated(run: Run) -> None:
    result = run(*SMALL)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "manifest.json",
        "test.jsonl",
        "tokenizer",
        "train.jsonl",
        "validation.jsonl",
    ]
    manifest = read_manifest("out")
    encoder = load_encoder("out")
    task = get_task(load_config(["tasks/addition"]).task)
    prompts: dict[str, set[str]] = {}
    for split in SPLITS:
        rows = rows_of(split)
        counts = manifest.splits[split]
        assert counts.rows == len(rows)
        assert counts.tokens == sum(len(row["input_ids"]) for row in rows)
        assert counts.longest_row == max(len(row["input_ids"]) for row in rows)
        texts = []
        for row in rows:
            ids, length = row["input_ids"], row["prompt_length"]
            assert ids.count(manifest.eos_token_id) == 1
            assert ids[-1] == manifest.eos_token_id
            texts.append(encoder.tokenizer.decode(ids[:length]))
            # Evaluation encodes a prompt to just these ids.
            assert encoder.prompts([texts[-1]]) == [ids[:length]]
            if split == "train":
                assert list(row) == ["input_ids", "prompt_length", "id"]
            else:
                response = encoder.tokenizer.decode(ids[length:], skip_special_tokens=True)
                assert task.score(response, json.loads(row["reference"])) == 1.0
        prompts[split] = {prompt_key(text).hex() for text in texts}
        assert len(prompts[split]) == len(rows), "deduplicated"
    assert manifest.splits["test"].rows == 40
    assert manifest.splits["train"].rows + manifest.splits["validation"].rows == 300
    assert manifest.splits["validation"].rows > 0
    assert manifest.splits["train"].duplicates_dropped > 0
    assert not prompts["train"] & prompts["validation"]
    assert not prompts["test"] & (prompts["train"] | prompts["validation"])
    # Sample numbers follow the order of the rows.
    numbers = [int(row["id"].rpartition("-")[2]) for row in rows_of("train")]
    assert numbers == sorted(numbers)


def test_more_training_rows_keep_the_test_rows(run: Run) -> None:
    assert run(*SMALL).exit_code == 0
    more = run("data.folder=more", "prepare.train_rows=600", "prepare.test_rows=40")
    assert more.exit_code == 0
    assert rows_of("test") == rows_of("test", "more")
    assert rows_of("train", "more")[:200] == rows_of("train")[:200]


def test_second_run(run: Run) -> None:
    assert run(*SMALL).exit_code == 0
    before = Path("out/manifest.json").stat().st_mtime_ns
    again = run(*SMALL)
    assert again.exit_code == 0
    assert "prepared already" in again.stderr
    assert Path("out/manifest.json").stat().st_mtime_ns == before
    other = run(*SMALL, "prepare.seed=1")
    assert other.exit_code == 2
    assert "out was prepared with other settings" in other.stderr
    assert "choose another data.folder" in other.stderr


def test_foreign_files_stay(run: Run) -> None:
    Path("out").mkdir()
    Path("out/train.jsonl").write_text("mine")
    result = run(*SMALL)
    assert result.exit_code == 2
    assert "holds other files" in result.stderr
    assert Path("out/train.jsonl").read_text() == "mine"


@pytest.mark.slow
def test_same_bytes_on_any_cluster(run: Run) -> None:
    keys = ["prepare.train_rows=1200", "prepare.test_rows=40", "prepare.vocabulary_size=300"]
    assert run(*keys).exit_code == 0
    code = f"""
from raymdm.cluster import start_ray
from raymdm.config import load_config
from raymdm.prepare import prepare
with start_ray("local", cpus=1):
    prepare(load_config(["tasks/addition"], {[*keys, "data.folder=one"]}))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    files = [path.relative_to("out") for path in Path("out").rglob("*") if path.is_file()]
    assert len(files) == 6
    for file in files:
        assert (Path("out") / file).read_bytes() == (Path("one") / file).read_bytes(), file


def test_exhausted_task(run: Run) -> None:
    line = refused(run("task.options.max_digits=1", "task.options.min_digits=1", *SMALL))
    assert "distinct training problems (wanted 300)" in line
    assert "prepare.train_rows" in line


def test_gsm8k_files(run: Run) -> None:
    if not GSM8K.is_dir():
        pytest.skip("GSM8K is not beside the repository")
    for split in ("train", "test"):
        lines = (GSM8K / f"{split}.jsonl").read_text().splitlines(keepends=True)
        Path(f"{split}.jsonl").write_text("".join(lines[:200]))
    keys = ["prepare.train=train.jsonl", "prepare.test=test.jsonl", "prepare.max_length=350"]
    result = run(*keys, "prepare.vocabulary_size=600", config="tasks/gsm8k")
    assert result.exit_code == 0, result.output
    manifest = read_manifest("out")
    kept = sum(manifest.splits[split].rows for split in SPLITS)
    dropped = sum(manifest.splits[split].dropped_too_long for split in SPLITS)
    assert kept + dropped == 400
    assert dropped > 0
    assert manifest.splits["test"].wrong_by_own_scorer == 0
    assert max(manifest.splits[split].longest_row for split in SPLITS) <= 350
    source = [json.loads(line) for line in Path("test.jsonl").read_text().splitlines()]
    tokenizer = load_encoder("out").tokenizer
    row = rows_of("test")[0]
    number = int(row["id"].partition(":")[2])
    text = tokenizer.decode(row["input_ids"])
    assert text == "{question}\n{answer}<|endoftext|>".format(**source[number - 1])
    assert json.loads(row["reference"]) == source[number - 1]


def test_parquet_and_row_limits(run: Run) -> None:
    table = pa.Table.from_pylist(problems(0, 60))
    pyarrow.parquet.write_table(table, "train.parquet", row_group_size=25)
    write_rows("test.jsonl", problems(100, 110))
    keys = ["prepare.train=train.parquet", "prepare.test=test.jsonl", *BYTES]
    limits = ["prepare.train_rows=30", "prepare.test_rows=4", "prepare.validation_fraction=0.0"]
    assert run(*keys, *limits, config="tasks/gsm8k").exit_code == 0
    assert [row["id"] for row in rows_of("train")] == [f"train.parquet:{n}" for n in range(1, 31)]
    assert [row["id"] for row in rows_of("test")] == [f"test.jsonl:{n}" for n in range(1, 5)]
    assert rows_of("validation") == []


def test_hugging_face_data_set(run: Run) -> None:
    Path("hub").mkdir()
    write_rows("hub/train.jsonl", problems(0, 20))
    write_rows("hub/test.jsonl", problems(30, 35))
    keys = ["prepare.train=hub", "prepare.hub_config=default", *BYTES]
    result = run(*keys, config="tasks/gsm8k")
    assert result.exit_code == 0, result.output
    manifest = read_manifest("out")
    assert manifest.splits["train"].rows + manifest.splits["validation"].rows == 20
    assert manifest.splits["test"].rows == 5
    bad = run(*keys, "prepare.test_split=exam", "data.folder=other", config="tasks/gsm8k")
    assert bad.exit_code == 2
    assert "prepare.test" in bad.stderr
    assert "'exam'" in bad.stderr


def test_equal_prompts_stay_together(run: Run) -> None:
    rows = [row for row in problems(0, 40) for _ in range(3)]
    write_rows("train.jsonl", rows)
    keys = ["prepare.train=train.jsonl", "prepare.validation_fraction=0.3", *BYTES]
    assert run(*keys, config="tasks/gsm8k").exit_code == 0
    train, validation = rows_of("train"), rows_of("validation")
    assert len(train) + len(validation) == 120
    prompts = [
        {tuple(r["input_ids"][: r["prompt_length"]]) for r in s} for s in (train, validation)
    ]
    assert prompts[1]
    assert not prompts[0] & prompts[1]
    assert rows_of("test") == []


def test_overlap_names_rows(run: Run) -> None:
    write_rows("train.jsonl", problems(0, 20))
    write_rows("test.jsonl", problems(17, 25))
    line = refused(
        run("prepare.train=train.jsonl", "prepare.test=test.jsonl", *BYTES, config="tasks/gsm8k")
    )
    assert "3 training rows have the prompt of a test row" in line
    assert "train.jsonl:18 = test.jsonl:1, train.jsonl:19 = test.jsonl:2" in line


def test_own_task(run: Run) -> None:
    Path("shouting.py").write_text(
        "from raymdm.tasks import Example, TaskSpec, register_task\n"
        "def make(section):\n"
        "    def example(row):\n"
        "        return Example(row['text'], row['text'].upper(), {'gold': row['text'].upper()})\n"
        "    return TaskSpec('shout', example, str.strip, lambda t, r: float(t == r['gold']))\n"
        "register_task('shout', make)\n"
    )
    write_rows("words.jsonl", [{"text": "ab"}, {"text": "cd"}, {"txt": "ef"}])
    keys = ["task={name: shout}", "prepare.train=words.jsonl", *BYTES]
    empty = "prepare.train_rows=2"
    result = run(
        *keys, empty, "prepare.validation_fraction=0.0", config="tasks/gsm8k", imports="shouting"
    )
    assert result.exit_code == 0, result.output
    assert len(rows_of("train")) == 2
    broken = run(*keys, "data.folder=other", config="tasks/gsm8k", imports="shouting")
    assert broken.exit_code == 2
    assert "words.jsonl, line 3: task shout failed on this row (KeyError: 'text')" in broken.stderr


GOOD = '{"question": "1 + 1?", "answer": "#### 2"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"question": \n', "rows.jsonl, line 2: not valid JSON"),
        (GOOD + "[1]\n", "rows.jsonl, line 2: expected an object, found a list"),
        (GOOD * 2 + '{"answer": "#### 2"}\n', "rows.jsonl, line 3: field 'question'"),
        (GOOD + '{"question": "?", "result": 1}', "fields found: question, result"),
        (GOOD + '{"question": "?", "answer": "2"}', "line 2: field 'answer' does not end with"),
        (GOOD + GOOD.replace("1 +", "<|endoftext|>"), "line 2: the prompt contains the text of"),
        ("", "rows.jsonl: the file is empty"),
        ("\n\n", "rows.jsonl: the file is empty"),
    ],
)
def test_bad_rows(run: Run, content: str, message: str) -> None:
    Path("rows.jsonl").write_text(content)
    assert message in refused(run("prepare.train=rows.jsonl", *BYTES, config="tasks/gsm8k"))
    assert list(Path().iterdir()) == [Path("rows.jsonl")]


def test_not_utf8(run: Run) -> None:
    Path("rows.jsonl").write_bytes(GOOD.encode() + b'{"question": "\xff"}\n')
    line = refused(run("prepare.train=rows.jsonl", *BYTES, config="tasks/gsm8k"))
    assert "rows.jsonl, line 2: not UTF-8" in line


def test_all_rows_too_long(run: Run) -> None:
    Path("rows.jsonl").write_text(GOOD)
    keys = ["prepare.train=rows.jsonl", *BYTES, "prepare.max_length=5"]
    assert "1 were longer than prepare.max_length" in refused(run(*keys, config="tasks/gsm8k"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["task.name=gsm8"], "unknown task 'gsm8'; did you mean 'gsm8k'"),
        (["task.name=reasoning_gym:chain_sun"], "did you mean 'chain_sum'"),
        (["task.options.operator=x"], "no option 'operator'; did you mean 'operators'"),
        (["task.prompt_template='{expresion}='"], "'expresion'"),
        (["task.prompt_template='{expression.x}='"], "plain name"),
        (["task.response_template=''"], "generated row 0 (seed 0): the response is empty"),
        (["task.response_template='is {answer}'"], "takes none of the 40 test rows' own responses"),
        (["prepare.train=none.jsonl"], "prepare.train: file none.jsonl not found"),
        (["prepare.train=train.csv"], "prepare.train: file train.csv not found"),
        (["prepare.test=generate"], "prepare.test: leave it null"),
        (["prepare.template=chat"], "no chat template"),
        (["prepare.max_length=6"], "wanted 300"),
        (["task.delimiters=['(']"], "task.delimiters: '(' is not a regular expression"),
    ],
)
def test_bad_settings(run: Run, keys: list[str], message: str) -> None:
    assert message in refused(run(*SMALL, *keys))


def marked_texts(field: str, split: str = "train") -> list[list[str]]:
    """Of every row the texts of its marked tokens."""
    tokenizer = load_encoder("out").tokenizer
    return [
        [tokenizer.decode([row["input_ids"][position]]) for position in row.get(field, [])]
        for row in rows_of(split)
    ]


def test_delimiters_and_syntax_are_marked(run: Run) -> None:
    rows = problems(0, 40)
    rows[3]["question"] = "What is 3 plus 1?"
    write_rows("train.jsonl", rows)
    write_rows("test.jsonl", problems(50, 55))
    keys = ["prepare.train=train.jsonl", "prepare.test=test.jsonl"]
    keys += ["prepare.vocabulary_size=300", "prepare.validation_fraction=0.0"]
    result = run(*keys, r"task.syntax=['\+ \d\?']", config="tasks/gsm8k")
    assert result.exit_code == 0, result.output
    assert marked_texts("delimiters") == [["####"]] * 40, "merged to one token"
    syntax = marked_texts("syntax")
    assert syntax.pop(3) == []
    assert {"".join(texts) for texts in syntax} == {" + 1?"}, "the space belongs to its token"
    train, test = (read_manifest("out").splits[split] for split in ("train", "test"))
    assert (train.rows_with_delimiters, train.rows_with_syntax) == (40, 39)
    assert (test.rows_with_delimiters, test.rows_with_syntax) == (5, 5)
    assert "rows with delimiters: 40 of 40 train, 5 of 5 test" in result.output
    assert "rows with syntax: 39 of 40 train, 5 of 5 test" in result.output


def test_the_folder_is_another_one_with_other_patterns(run: Run) -> None:
    write_rows("train.jsonl", problems(0, 40))
    keys = ["prepare.train=train.jsonl", *BYTES]
    assert run(*keys, config="tasks/gsm8k").exit_code == 0
    same = run(*keys, "task.delimiters=null", config="tasks/gsm8k")
    assert same.exit_code == 0
    assert "prepared already" in " ".join(same.stderr.split()), "null takes the task's own"
    for other in ("task.delimiters=[]", "task.delimiters=['###']", "task.syntax=['#']"):
        result = run(*keys, other, config="tasks/gsm8k")
        assert result.exit_code == 2
        assert "was prepared with other settings" in result.stderr


def test_nothing_is_marked_without_patterns(run: Run) -> None:
    result = run(*SMALL)
    assert result.exit_code == 0, result.output
    assert "rows with" not in result.output
    assert read_manifest("out").splits["train"].rows_with_delimiters == 0


def test_a_slow_tokenizer_cannot_mark(run: Run) -> None:
    ByT5Tokenizer().save_pretrained("slow")
    write_rows("train.jsonl", problems(0, 40))
    keys = ["prepare.train=train.jsonl", "prepare.tokenizer=slow"]
    line = refused(run(*keys, config="tasks/gsm8k"))
    assert "ByT5Tokenizer is a slow tokenizer" in line
    assert run(*keys, "task.delimiters=[]", config="tasks/gsm8k").exit_code == 0


def test_task_without_generator(run: Run) -> None:
    line = refused(run("prepare.train=generate", config="tasks/gsm8k"))
    assert "task gsm8k has no generator" in line


def test_generated_rows_beside_a_test_file(run: Run) -> None:
    assert run(*SMALL, "data.folder=first").exit_code == 0
    entries = [json.loads(row["reference"]) for row in rows_of("validation", "first")]
    write_rows("exam.jsonl", entries)
    assert run("prepare.train_rows=300", "prepare.test=exam.jsonl").exit_code == 0
    prompts = {
        split: {tuple(row["input_ids"][: row["prompt_length"]]) for row in rows_of(split)}
        for split in SPLITS
    }
    assert len(prompts["test"]) == len(entries)
    assert len(prompts["train"] | prompts["validation"]) == 300
    assert not prompts["test"] & (prompts["train"] | prompts["validation"])


def test_python_door(run: Run) -> None:
    config = load_config(["tasks/sorting"], [*SMALL, "data.folder=out"])
    manifest = prepare(config)
    assert manifest == read_manifest("out").model_dump() == prepare(config)
    assert manifest["splits"]["test"]["wrong_by_own_scorer"] == 0
    length = config.evaluation.decoding.response_length
    assert manifest["splits"]["train"]["longest_response"] == length


def test_a_csv_file_keeps_its_leading_zeros(run: Run) -> None:
    generate = get_task("sudoku").generate
    assert generate is not None
    puzzles = generate(0, 0)[:40]
    for name, part in (("train", puzzles[:30]), ("test", puzzles[30:])):
        lines = [",".join(puzzle.values()) for puzzle in part]
        Path(f"{name}.csv").write_text("\n".join(["Puzzle,Solution", *lines]) + "\n")
    result = run("prepare.train=train.csv", "prepare.test=test.csv", config="tasks/sudoku")
    assert result.exit_code == 0, result.output
    assert read_manifest("out").splits["test"].wrong_by_own_scorer == 0
    references = [json.loads(row["reference"]) for row in rows_of("test")]
    assert [one["puzzle"] for one in references] == [puzzle["Puzzle"] for puzzle in puzzles[30:]]


def test_tables_are_read_where_the_user_is_and_count_by_what_is_in_them(
    run: Run, tmp_path: Path
) -> None:
    def write_tables(cell: str) -> None:
        texts = [["year", "share"], *([str(year), cell] for year in range(30))]
        write_rows("tables.jsonl", [{"table_id": "1", "title": "t", "texts": texts}])

    questions = [
        {"table_id": "1", "question": f"in {year}?", "answer": [year]} for year in range(30)
    ]
    write_tables("2.5")
    keys = [
        f"prepare.train={write_rows('train.jsonl', questions[:20])}",
        f"prepare.test={write_rows('test.jsonl', questions[20:])}",
        "task.options.tables=[tables.jsonl]",
        "prepare.vocabulary_size=300",
    ]
    result = run(*keys, config="tasks/hitab")
    assert result.exit_code == 0, result.output
    text = load_encoder("out").tokenizer.decode(rows_of("test")[0]["input_ids"])
    assert "<td>2.5</td>" in text
    assert "syntax" in rows_of("test")[0]
    keys[2] = f"task.options.tables=['{tmp_path}/tables.jsonl']"  # the same, called otherwise
    again = run(*keys, config="tasks/hitab")
    assert "prepared already" in " ".join(again.stderr.split())
    write_tables("3.5")
    changed = run(*keys, config="tasks/hitab")
    assert changed.exit_code == 2, "the folder holds rows with other tables"
    Path("tables.jsonl").unlink()
    line = run(*keys, config="tasks/hitab").stderr
    assert "tables.jsonl not found" in line
