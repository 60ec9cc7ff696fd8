"""raymdm export RUN_DIR FOLDER : a run's model as a Hugging Face folder.

    raymdm export runs/one exported/one

Writes safetensors in the layout of the model's family (adapters merged), `config.json`, the
tokenizer, `generation_config.json` and a model card (`README.md`) with configuration and scores.
The folder loads again by its path: `load_model`, or `model.init_from` of another run.
"""

from pathlib import Path
from typing import Annotated

import typer

from raymdm.command import ConfigFiles, Overrides, Verbose, reports_errors, run_as_program, settings
from raymdm.exports import export_run
from raymdm.exports.folder import Precision
from raymdm.training import RunDirectory


@reports_errors
def main(
    run_dir: Annotated[Path, typer.Argument(help="The folder that `raymdm train` wrote.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not be there yet.")],
    config: ConfigFiles = None,
    set_: Overrides = None,
    precision: Annotated[
        Precision, typer.Option(help="Number format of the weights; `same` keeps the run's.")
    ] = "same",
    verbose: Verbose = False,
) -> None:
    """Write a run's model as a Hugging Face folder with its tokenizer and its card.

    Weights are safetensors under the names of the family's own release (LLaDA, MMaDA, Dream), LoRA
    adapters merged in. Run `raymdm evaluate` first: the card shows its scores. The folder loads in
    raymdm by its path and, for the families that publish their code, in transformers.

    Example: raymdm export runs/one exported/one
    """
    run = RunDirectory.existing(run_dir)
    checked = settings(config, set_, base=run.read_config())
    run.check_same(checked)
    shape = export_run(run, checked, folder.absolute(), precision)
    size = sum(path.stat().st_size for path in folder.iterdir())
    typer.echo(
        f"{folder}: {shape.layers} layers of width {shape.hidden_size}, {shape.family} layout, "
        f"{size / 1e6:,.1f} MB; load it with raymdm.models.load_model or model.init_from"
    )


if __name__ == "__main__":
    run_as_program(main)
