"""raymdm generate SOURCE [PROMPTS…] : a model's responses to prompts, or texts with gaps filled.

    raymdm generate runs/one "17 + 25 =" --live
    raymdm generate runs/one --prompts prompts.jsonl --out responses.jsonl --set evaluation.actors=2

Without prompts, in a terminal, it asks for them. `--out` writes a JSONL file, in the order of the
prompts, with the sampler's settings beside it (`FILE.settings.json`); the same command goes on
where it was interrupted. Neither actors nor batches change a response.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from raymdm import __version__
from raymdm.command import (
    ConfigFiles,
    DumpConfig,
    Overrides,
    Verbose,
    check_place,
    reports_errors,
    run_as_program,
    settings,
)
from raymdm.config import Config
from raymdm.config.decoding import DecodingSection
from raymdm.decoding import check_decoding
from raymdm.decoding.schedule import fixed_length
from raymdm.errors import ConfigurationError, DataError, UserError
from raymdm.evaluations.decode import DecodePrompts
from raymdm.evaluations.live import LiveView
from raymdm.evaluations.pool import Record, run_chunks
from raymdm.evaluations.prompts import Prompt, RawPrompt, encode_prompts, given_prompts
from raymdm.evaluations.result_file import ResultFile
from raymdm.evaluations.settings import fixed_decoding, with_response_length
from raymdm.evaluations.subject import Subject, is_run, open_subject
from raymdm.progress import counting
from raymdm.training import RunDirectory
from raymdm.training.engine_run import pick_device

LENGTH = 128
"""Tokens of a response where neither the configuration nor prepared data say how many."""


@reports_errors
def main(
    source: Annotated[
        str, typer.Argument(help="A run directory, a model folder or a Hugging Face id.")
    ],
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts; `-` reads them from stdin, one a line.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="`.txt`: a prompt on each line. `.jsonl`: rows with `prompt` (and `id`), or "
            "prepared rows with `input_ids` and `prompt_length`.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write id, prompt, response, tokens and steps there, as JSONL."
        ),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Write what happened at every step too (with --out).")
    ] = False,
    infill: Annotated[
        bool,
        typer.Option(
            "--infill",
            help="Prompts are texts with gaps to be filled in: `[MASK]` one token, `[MASK:8]` 8.",
        ),
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Show every response while it is denoised.")
    ] = False,
    config: ConfigFiles = None,
    set_: Overrides = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Write responses to prompts, or fill in texts with gaps.

    The sampler's settings are `evaluation.decoding.*` (`--dump-config` shows them all). Responses
    are printed, or written by `--out`, over a Ray cluster with `evaluation.actors`. Without prompts
    it asks for them and shows each response while it is denoised; a line that ends in a backslash
    goes on in the next.

    Example: raymdm generate runs/one "17 + 25 =" --live --set evaluation.decoding.steps=8

    Example: raymdm generate runs/one --prompts data/test.jsonl --out responses.jsonl
    """
    base = None
    if is_run(source):
        base = RunDirectory(source).read_config()
    checked = settings(config, set_, base=base, dump_config=dump_config)
    if base is not None:
        RunDirectory(source).check_same(checked)
    _check_options(checked, out, trace, live)
    asks = not prompts and file is None and out is None and sys.stdin.isatty()
    if not prompts and file is None and not asks:
        raise ConfigurationError(
            "no prompts: give some, --prompts FILE, or `-` to read them from stdin"
        )
    subject = open_subject(source, checked)
    checked = with_length(checked, subject)
    decoding = checked.evaluation.decoding
    if not infill:
        check_decoding(decoding, causal=subject.shape.causal)
    work = DecodePrompts(subject.source, checked, infill, trace)
    if asks:
        _show(work, subject, _asked(subject, decoding, infill))
        return
    encoded = encode_prompts(
        given_prompts(prompts or [], file), subject, fixed_length(decoding), infill=infill
    )
    if not encoded:
        raise DataError(f"{file or 'stdin'}: no prompts")
    if live:
        _show(work, subject, iter(encoded))
    elif out is None:
        _print(_decoded(work, encoded, verbose), encoded)
    else:
        _write(work, subject, encoded, out.absolute(), verbose)


def with_length(config: Config, subject: Subject) -> Config:
    """The configuration with its response length filled in, which is said on stderr."""
    if config.evaluation.decoding.response_length is not None:
        return config
    if subject.manifest is None:
        why = "this model does not say how long its responses are"
        config = with_response_length(config, LENGTH)
    else:
        why = "the longest training response"
        config = fixed_decoding(config, subject.manifest)
    length = fixed_length(config.evaluation.decoding)
    typer.echo(
        f"response length {length} tokens: {why} (evaluation.decoding.response_length)", err=True
    )
    return config


def _check_options(config: Config, out: Path | None, trace: bool, live: bool) -> None:
    check_place("--out", out)
    if trace and out is None:
        raise ConfigurationError("--trace is written into the file of --out; give one")
    if live and (out is not None or config.evaluation.actors is not None):
        raise ConfigurationError(
            "--live shows responses one by one in this process; it goes with neither --out nor "
            "evaluation.actors"
        )


def _decoded(work: DecodePrompts, prompts: list[Prompt], verbose: bool) -> Iterator[list[Record]]:
    """The records of prompts, chunk by chunk, as they come."""
    return run_chunks(
        work, prompts, work.config, length=lambda prompt: len(prompt.ids), verbose=verbose
    )


def _print(chunks: Iterator[list[Record]], prompts: list[Prompt]) -> None:
    records: list[Record] = []
    with counting("decoding", len(prompts)) as advance:
        for chunk in chunks:
            records += chunk
            advance(len(chunk))
    for record in sorted(records, key=lambda record: int(record["number"])):
        if len(records) > 1:
            typer.secho(f"[{record['id']}] {record['prompt'].strip()}", dim=True)
        typer.echo(record["response"])


def _write(
    work: DecodePrompts, subject: Subject, prompts: list[Prompt], out: Path, verbose: bool
) -> None:
    about = {"source": work.source, "raymdm": __version__}
    with ResultFile(out, _result_settings(work, subject, prompts), about) as file:
        if file.complete:
            typer.echo(f"{out} has all {len(prompts)} responses already; nothing to do")
            return
        missing = [prompt for prompt in prompts if prompt.number not in file.done]
        if len(missing) < len(prompts):
            kept = len(prompts) - len(missing)
            typer.echo(f"{file.partial}: {kept} of {len(prompts)} are there; going on", err=True)
        try:
            with counting("decoding", len(prompts), len(prompts) - len(missing)) as advance:
                for chunk in _decoded(work, missing, verbose):
                    file.append(chunk)
                    advance(len(chunk))
        except KeyboardInterrupt:
            typer.secho("stopped; the same command goes on from here", err=True)
            raise
        file.finish()
        typer.echo(f"{out}: {len(prompts)} responses; their settings: {file.settings_file.name}")


def _result_settings(
    work: DecodePrompts, subject: Subject, prompts: list[Prompt]
) -> dict[str, object]:
    """All that the responses depend on."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(asdict(prompt)).encode() + b"\n")
    return {
        "weights": subject.weights,
        "template": "plain" if work.infill else subject.encoder.template,
        "prompts": {"count": len(prompts), "sha256": digest.hexdigest()},
        "infill": work.infill,
        "trace": work.trace,
        "decoding": work.config.evaluation.decoding.model_dump(),
    }


def _show(work: DecodePrompts, subject: Subject, prompts: Iterator[Prompt]) -> None:
    """Responses one after the other, each shown while it is denoised where that can be seen."""
    console = Console(highlight=False)
    model = subject.load(pick_device(work.config))
    masks = [subject.shape.mask_token_id] * fixed_length(work.config.evaluation.decoding)
    for prompt in prompts:
        if not console.is_terminal:
            (record,) = work.records(subject, model, [prompt])
            typer.echo(record["response"])
            continue
        row = prompt.ids if work.infill else masks
        view = LiveView(console, subject.encoder.tokenizer, subject.shape, row, infill=work.infill)
        with view:
            (record,) = work.records(subject, model, [prompt], view.watch)
        console.print(record["response"], markup=False)
        console.print(view.figures, style="dim")


def _asked(subject: Subject, decoding: DecodingSection, infill: bool) -> Iterator[Prompt]:
    """Prompts typed in a terminal, until its end (Ctrl-D); one that cannot be used is said so."""
    console = Console(stderr=True, highlight=False)
    console.print("Type a prompt; Ctrl-D ends.", style="dim")
    number, text = 0, ""
    while True:
        try:
            line = console.input("[bold]…[/] " if text else "[bold]>[/] ")
        except EOFError:
            console.print()
            return
        text += line
        if line.endswith("\\"):
            text = text[:-1] + "\n"
            continue
        raw, text = RawPrompt(f"prompt {number + 1}", text, str(number)), ""
        if not raw.text:
            continue
        try:
            (prompt,) = encode_prompts([raw], subject, fixed_length(decoding), infill=infill)
        except UserError as error:
            console.print(f"{error}", style="red", markup=False)
            continue
        yield Prompt(number, prompt.id, prompt.text, prompt.ids)
        number += 1


if __name__ == "__main__":
    run_as_program(main)
