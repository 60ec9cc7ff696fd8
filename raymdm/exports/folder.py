"""Write the folder: weights in their family's layout, tokenizer, generation defaults, card."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from raymdm.config import Config
from raymdm.data.manifest import Manifest, read_manifest
from raymdm.errors import CheckpointError
from raymdm.evaluations.settings import fixed_decoding
from raymdm.exports.card import model_card
from raymdm.models import ModelShape, assemble, open_weights, save_model
from raymdm.models.weights import PRECISIONS
from raymdm.training import RunDirectory
from raymdm.training.run_directory import read_json

Precision = Literal["same", "fp32", "bf16"]
# The code that upstream runs with these weights, where the families publish it.
_UPSTREAM = {
    "llada": {
        "AutoConfig": "GSAI-ML/LLaDA-8B-Base--configuration_llada.LLaDAConfig",
        "AutoModelForCausalLM": "GSAI-ML/LLaDA-8B-Base--modeling_llada.LLaDAModelLM",
        "AutoModel": "GSAI-ML/LLaDA-8B-Base--modeling_llada.LLaDAModelLM",
    },
    "dream": {
        "AutoConfig": "Dream-org/Dream-v0-Base-7B--configuration_dream.DreamConfig",
        "AutoModel": "Dream-org/Dream-v0-Base-7B--modeling_dream.DreamModel",
    },
}


def export_run(run: RunDirectory, config: Config, target: Path, precision: Precision) -> ModelShape:
    """Write a run's model to a new folder, which appears only when it is complete.

    Args:
        run: with a `model/`; adapters are merged in there already.
        config: of the run.
        target: must not exist, or be empty.
        precision: of the written weights; `same` keeps the run's.

    Returns:
        The shape that the folder says it has.

    Raises:
        CheckpointError: the run has no model, or the folder cannot be written.
    """
    if not run.model.is_dir():
        raise CheckpointError(
            f"{run.path} has no model/ (state: {run.status().get('state', 'unknown')}); train it "
            "to the end with `keep` other than metrics"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is there already; give a folder that is not")
    manifest = read_manifest(config.data.folder)
    run.check_data(config, manifest.fingerprint)
    config = fixed_decoding(config, manifest)
    written = target.with_name(f".{target.name}.partial")
    shutil.rmtree(written, ignore_errors=True)
    try:
        _write(run, config, manifest, written, target.name, precision)
        shape = open_weights(written).shape
        if target.exists():
            target.rmdir()
        written.rename(target)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return shape


def _write(
    run: RunDirectory,
    config: Config,
    manifest: Manifest,
    folder: Path,
    name: str,
    precision: Precision,
) -> None:
    weights = open_weights(run.model)
    stored = weights.tensor("norm.weight").dtype
    model = assemble(weights, stored if precision == "same" else PRECISIONS[precision])
    save_model(model, folder)
    _name_upstream_code(folder / "config.json", model.shape)
    tokenizer = Path(config.data.folder) / manifest.tokenizer
    if tokenizer.is_dir():
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    defaults = generation_defaults(config, model.shape)
    (folder / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n")
    scores = read_json(run.scores)
    own_code = any(folder.glob("*.py"))
    card = model_card(name, run, config, manifest, model, scores, own_code=own_code)
    card.save(folder / "README.md")


_ALGORITHMS = {
    "probability": "maskgit_plus",
    "margin": "topk_margin",
    "entropy": "entropy",
    "random": "origin",
}
"""Dream's names of the confidences."""


def generation_defaults(config: Config, shape: ModelShape) -> dict[str, Any]:
    """How the run's responses were decoded, in Dream's keys where it has them."""
    decoding = config.evaluation.decoding
    length = decoding.response_length
    return {
        "alg": "left_to_right" if shape.causal else _ALGORITHMS[decoding.confidence],
        "block_length": decoding.block_length or length,
        "max_new_tokens": length,
        "steps": decoding.steps or length,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "top_k": decoding.top_k,
        "mask_token_id": shape.mask_token_id,
        "eos_token_id": shape.eos_token_id,
        "pad_token_id": shape.pad_token_id,
    }


def _name_upstream_code(path: Path, shape: ModelShape) -> None:
    """Point `auto_map` at the published code: the folder holds none, and brings none along."""
    config = json.loads(path.read_text())
    for key in ("auto_map", "_name_or_path"):  # the second is a path of some machine
        config.pop(key, None)
    if not shape.causal and shape.family in _UPSTREAM:
        config["auto_map"] = _UPSTREAM[shape.family]
    path.write_text(json.dumps(config, indent=2) + "\n")
