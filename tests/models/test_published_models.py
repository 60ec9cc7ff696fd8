"""LLaDA, Dream and MMaDA as published: the logits of their own code, and back without a loss."""

import json
from pathlib import Path

import published
import pytest
import torch
from safetensors.torch import load_file

from raymdm.models import Execution, load_model, load_shape, save_model

pytestmark = published.needed


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("family", "name"), published.CASES)
def test_a_model_gives_the_logits_of_the_original_code(family: str, name: str, packed: bool):
    ids, attention, wanted, real = published.case(family, name)
    model = load_model(published.folder(family))
    model.execution = Execution(packed=packed)
    with torch.no_grad():
        logits = model(ids, attention)
    torch.testing.assert_close(logits[real], wanted[real], rtol=0, atol=1e-3)
    assert (logits[real].argmax(-1) == wanted[real].argmax(-1)).all()


@pytest.mark.parametrize("family", published.FAMILIES)
def test_a_padded_row_has_the_logits_of_the_row_alone(family: str):
    """Dream's first token too, which the original predicts from padding."""
    ids, attention, _, _ = published.case(family, "leftpad")
    assert attention is not None
    model = load_model(published.folder(family), torch.float64)
    with torch.no_grad():
        together = model(ids, attention)
        for row, real in enumerate(attention.bool()):
            alone = model(ids[row, real][None])[0]
            torch.testing.assert_close(together[row, real], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", published.FAMILIES)
def test_a_folder_is_written_back_name_by_name(family: str, tmp_path: Path):
    source = published.folder(family)
    save_model(load_model(source), tmp_path)
    ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path, source))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert load_shape(tmp_path) == load_shape(source)
    written, given = (json.loads((f / "config.json").read_text()) for f in (tmp_path, source))
    assert written == given | {"torch_dtype": "float32"}


def test_image_codes_are_part_of_mmadas_vocabulary():
    shape = load_shape(published.folder("mmada"))
    assert (shape.family, shape.vocabulary_size) == ("mmada", 320)
    assert shape.published["num_vq_tokens"] == 16
