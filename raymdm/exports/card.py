"""The model card: what was trained, how, on what, and what it scored."""

from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from raymdm.config import Config
from raymdm.data.manifest import Manifest
from raymdm.models import Backbone
from raymdm.training import RunDirectory
from raymdm.training.run_directory import identity, read_json

_TEMPLATE = Path(__file__).parent / "card.md.j2"
_NAMES = {
    "llada": "LLaDA's",
    "mmada": "MMaDA's",
    "dream": "Dream's",
    "raymdm": "raymdm's own",
}


def model_card(
    name: str,
    run: RunDirectory,
    config: Config,
    manifest: Manifest,
    model: Backbone,
    scores: dict[str, Any],
    *,
    own_code: bool,
) -> ModelCard:
    """The card of an exported run.

    Args:
        name: of the folder.
        run: what was trained.
        config: of the run; paths and machines are left out of what is printed.
        manifest: of the data that it was trained on.
        model: as exported.
        scores: `scores.json`; empty where the run was not evaluated.
        own_code: whether the folder holds code, of its tokenizer.
    """
    task = manifest.task.get("name", "unknown")
    final, start = scores.get("final"), scores.get("step0")
    source = config.model.init_from
    hub_id = source if source and not Path(source).is_absolute() else None
    data = ModelCardData(
        base_model=hub_id,
        library_name="raymdm",
        pipeline_tag="text-generation",
        tags=["masked-diffusion", "diffusion-language-model", model.shape.family],
        model_name=name,
        eval_results=None if final is None else _results(final, task),
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=name,
        version=metadata.version("raymdm"),
        causal=model.shape.causal,
        shifted=model.shape.predicts_next,
        layout=_NAMES[model.shape.family],
        upstream=model.shape.family in ("llada", "dream") and not model.shape.causal,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        source=hub_id or ("a local checkpoint" if source else None),
        own_code=own_code,
        adapters=config.model.lora.rank,
        step=read_json(run.model / "training_step.json").get("step"),
        seed=config.seed,
        task=task,
        rows=manifest.splits["train"].rows,
        fingerprint=manifest.fingerprint,
        final=final,
        start=start,
        mask_token_id=model.shape.mask_token_id,
        configuration=yaml.safe_dump(_shown(config), sort_keys=False, allow_unicode=True),
    )
    return card


def _results(final: dict[str, Any], task: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            dataset_split=final["split"],
            metric_type=metric,
            metric_value=final[metric],
        )
        for metric in ("accuracy", "nelbo_per_token")
    ]


def _shown(config: Config) -> dict[str, Any]:
    """The keys that decide the result, without paths of this machine."""
    content = identity(config.model_dump())
    content["deepspeed"].pop("overrides")
    source = content["model"]["init_from"]
    if source and Path(source).is_absolute():
        content["model"]["init_from"] = Path(source).name
    file = content["estimator"]["density"]["file"]
    if file:
        content["estimator"]["density"]["file"] = Path(file).name
    return content
