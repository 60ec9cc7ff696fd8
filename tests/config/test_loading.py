"""Files, overlays and `--set`: what is merged, what is refused, and what the message says."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raymdm.config import Config, dump_yaml, load_config, merge_overlay, read_config
from raymdm.config.loading import fingerprint, validate
from raymdm.errors import ConfigurationError

trees = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=3),
    lambda children: st.dictionaries(st.sampled_from("abcd"), children, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abcd"), trees, max_size=4)


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def value(key: str, *overrides: str) -> Any:
    found: Any = load_config([], overrides)
    for part in key.split("."):
        found = getattr(found, part)
    return found


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_config([], overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_merge_deeply_from_left_to_right_and_overrides_come_last(tmp_path: Path):
    one = write(tmp_path, "one.yaml", "training: {batch_size: 8, steps: 5}\nseed: 1\n")
    two = write(tmp_path, "two.yaml", "training: {batch_size: 16, learning_rate: 0.5}\n")
    config = load_config([one, two], ["seed=7", "training.steps=9"])
    training = config.training
    assert (training.batch_size, training.learning_rate, training.steps) == (16, 0.5, 9)
    assert config.seed == 7
    assert load_config([two, one]).training.batch_size == 8
    assert read_config([one, two]) == {
        "training": {"batch_size": 16, "steps": 5, "learning_rate": 0.5},
        "seed": 1,
    }


def test_lists_and_values_are_replaced_and_never_joined(tmp_path: Path):
    one = write(tmp_path, "one.yaml", "imports: [a, b]\nsweep: {seeds: [1, 2, 3]}\n")
    two = write(tmp_path, "two.yaml", "imports: [c]\nsweep: {seeds: []}\n")
    config = load_config([one, two])
    assert config.imports == ["c"]
    assert config.sweep.seeds == []


@given(mappings, mappings)
def test_merging_keeps_what_the_overlay_does_not_name_and_changes_neither_side(
    base: dict[str, Any], overlay: dict[str, Any]
):
    copies = yaml.safe_load(yaml.safe_dump([base, overlay]))
    merged = merge_overlay(base, overlay)
    assert [base, overlay] == copies
    assert set(merged) == set(base) | set(overlay)
    for key in merged:
        if key not in overlay:
            assert merged[key] == base[key]
        elif not (isinstance(base.get(key), dict) and isinstance(overlay[key], dict)):
            assert merged[key] == overlay[key]
        else:
            assert merged[key] == merge_overlay(base[key], overlay[key])
    assert merge_overlay(merged, overlay) == merged


@pytest.mark.parametrize(
    ("text", "key", "wanted"),
    [
        ("training.steps=100", "training.steps", 100),
        ("training.learning_rate=1e-3", "training.learning_rate", 0.001),
        ("training.learning_rate=2", "training.learning_rate", 2.0),
        ("training.betas=[0.8, 0.95]", "training.betas", [0.8, 0.95]),
        ("sweep.seeds=[1,2,3]", "sweep.seeds", [1, 2, 3]),
        ("training.steps=null", "training.steps", None),
        ("evaluation.step0=false", "evaluation.step0", False),
        ("run_dir=runs/a=b", "run_dir", "runs/a=b"),
        ("imports=[]", "imports", []),
        ("task.options={low: 1, high: 9}", "task.options", {"low": 1, "high": 9}),
        ("task.options.anything=3", "task.options", {"anything": 3}),
    ],
)
def test_the_value_of_an_override_is_yaml(text: str, key: str, wanted: object):
    got = value(key, text)
    assert got == wanted
    assert type(got) is type(wanted)


@pytest.mark.parametrize("text", ["training.steps", "=3", ""])
def test_an_override_without_a_key_or_a_value_is_refused(text: str):
    assert "expected key=value" in refusal(text)


def test_an_override_that_is_no_yaml_is_refused():
    assert "not valid YAML" in refusal("imports=[1, 2")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.batch_sise", "training.batch_size"),
        ("training.lr_schedule", "training.schedule"),
        ("batch_size", "training.batch_size"),
        ("evaluation.batchsize", "evaluation.batch_size"),
        ("estimator.density.probe.rate", "estimator.density.probe.rates"),
        ("estimator.views", "estimator.masker.views"),
        ("model.views", "estimator.masker.views"),
        ("trainning.steps", "training"),
        ("sede", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key: str, nearest: str):
    message = refusal(f"{key}=3")
    assert f"did you mean {nearest!r}?" in message
    assert "unknown key" in message


def test_a_key_that_resembles_none_points_to_the_list():
    assert "--dump-config" in refusal("zzz=1")


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path):
    path = write(tmp_path, "mine.yaml", "model:\n  hidden: 3\n")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml: unknown key 'model\.hidden'"):
        load_config([path])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training.steps='5'", "training.steps"),
        ("training.steps=1.5", "training.steps"),
        ("training.steps=true", "training.steps"),
        ("training.learning_rate=fast", "training.learning_rate"),
        ("training.betas=[0.9]", "training.betas"),
        ("training.precision=fp16", "training.precision"),
        ("training=3", "training"),
        ("seed=-1", "seed"),
        ("imports=module", "imports"),
        ("sweep.arms={a: {file: x}}", "sweep.arms.a.file"),
        ("evaluation.nelbo.exact_up_to=13", "evaluation.nelbo.exact_up_to"),
        ("estimator.epsilon=1.0", "estimator.epsilon"),
    ],
)
def test_a_wrong_type_or_range_names_the_key(text: str, key: str):
    assert f"configuration: {key}: " in refusal(text)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["training.steps=1", "training.epochs=1"], "not both"),
        (["training.batch_size=9", "cluster.workers=2"], "batch_size 9 .* cluster.workers 2"),
        (["estimator.masker.kind=mirror"], "set masker.views to 2"),
        (["estimator.masker.kind=mirror", "estimator.masker.views=3"], "exactly two views"),
        (["model.hidden_size=60", "model.heads=8"], "hidden_size 60"),
        (["model.key_value_heads=3"], "multiple of key_value_heads 3"),
        (["sweep.seeds=[1,1]"], "same seed twice"),
        (["sweep.arms={a: {}}", "sweep.baseline=b"], "'b' is not among the arms: a"),
        (["sweep.axes={seed: {choice: []}}"], "at least one value"),
        (["sweep.axes={seed: {choice: [1], uniform: [0, 1]}}"], "exactly one of"),
        (["sweep.axes={seed: {loguniform: [0, 1]}}"], "positive for loguniform"),
        (["sweep.axes={seed: {uniform: [2, 1]}}"], "low to a higher"),
    ],
)
def test_values_that_contradict_each_other_are_refused(overrides: list[str], reason: str):
    with pytest.raises(ConfigurationError, match=reason):
        load_config([], overrides)


def test_several_mistakes_are_all_named():
    message = refusal("seed=-1", "training.precision=fp16")
    assert "seed:" in message
    assert "training.precision:" in message


@pytest.mark.parametrize(
    ("text", "line"), [("seed: 1\ntraining: {\n", 3), ("a: b: c\n", 1), ("x: 1\n\ty: 2\n", 2)]
)
def test_broken_yaml_names_the_file_and_the_line(tmp_path: Path, text: str, line: int):
    path = write(tmp_path, "broken.yaml", text)
    with pytest.raises(ConfigurationError, match=rf"broken\.yaml, line {line}: ") as caught:
        load_config([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "just words\n"])
def test_a_file_that_holds_no_keys_is_named(tmp_path: Path, content: str):
    path = write(tmp_path, "list.yaml", content)
    with pytest.raises(ConfigurationError, match=r"list\.yaml: "):
        load_config([path])


def test_a_missing_file_names_the_nearest_shipped_one():
    with pytest.raises(ConfigurationError, match="did you mean 'estimators/mirror'"):
        load_config(["estimators/miror"])


def test_the_users_own_file_comes_before_a_shipped_one_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shipped = load_config(["base"])
    write(tmp_path, "base.yaml", "seed: 77\n")
    assert shipped.seed != 77
    assert load_config(["base"]).seed == 77


def test_the_dump_is_complete_and_loads_to_the_same_configuration(tmp_path: Path):
    config = load_config(
        ["base", "estimators/ppots_mirror", "models/5m"],
        ["task.options={a: [1, {b: null}]}", "sweep.arms={x: {overlay: {seed: 3}}}", "seed=5"],
    )
    path = write(tmp_path, "dump.yaml", dump_yaml(config))
    assert load_config([path]) == config
    assert read_config([path]) == config.model_dump()
    assert load_config([]) == Config()


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3


def test_an_empty_mapping_gives_the_defaults_and_a_name_for_where_it_came_from():
    assert validate({}) == Config()
    with pytest.raises(ConfigurationError, match=r"^arm a: "):
        validate({"seed": "x"}, "arm a")


def test_a_fingerprint_changes_with_any_value_and_not_with_the_order_of_keys():
    one = fingerprint({"a": 1, "b": {"c": [1, 2]}})
    assert one == fingerprint({"b": {"c": [1, 2]}, "a": 1})
    assert one != fingerprint({"a": 1, "b": {"c": [2, 1]}})
    assert len(one) == 16
