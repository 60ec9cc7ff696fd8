"""A model of ours as lm-evaluation-harness sees one: `raymdm` in its registry, once imported.

Log-likelihoods of a masked model are minus its NELBO, of a causal one exact. Texts are tokenized as
in training: context and continuation apart, joined afterwards.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import (
    get_rolling_token_windows,
    make_disjoint_window,
    simple_parse_args_string,
)
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from raymdm.config.decoding import DecodingSection
from raymdm.config.evaluation import NelboSection
from raymdm.config.loading import merge_overlay, read_config, validate
from raymdm.data.collate import collate
from raymdm.data.encoding import Encoder
from raymdm.decoding import generate
from raymdm.decoding.text import response_text
from raymdm.diffusion import choice_nats
from raymdm.errors import ConfigurationError
from raymdm.evaluations.given import gives_back
from raymdm.evaluations.subject import is_run, open_subject
from raymdm.models import Backbone
from raymdm.training import RunDirectory

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_HARNESS_LENGTH = 256
# Rows that wait together: sorted by length and batched among themselves, so that they pad little.
_ROWS = 1024

Pair = tuple[list[int], list[int]]
"""Token ids of a context and of its continuation."""


@register_model("raymdm")
class HarnessModel(LM):
    """A model with its tokenizer, sampler and NELBO settings.

    Noise is addressed by the number of the document in its task (and the repeat), so that a result
    depends neither on the batch nor on the other tasks, and the choices of a document share it.
    """

    def __init__(
        self,
        model: Backbone,
        encoder: Encoder,
        decoding: DecodingSection,
        nelbo: NelboSection,
        *,
        batch_size: int = 64,
        window: int = 2048,
        progress: bool = False,
    ) -> None:
        """What to ask, and how.

        Args:
            model: on its device, in evaluation mode.
            encoder: its tokenizer.
            decoding: of `generate_until`; its guidance holds for likelihoods too. A request's own
                length and, where it samples, temperature, top-p and top-k come first.
            nelbo: of `loglikelihood`, for a masked model.
            batch_size: rows of one forward; does not change a result beyond rounding.
            window: tokens that `loglikelihood_rolling` scores at once.
            progress: show a bar on stderr.
        """
        super().__init__()
        self.model, self.encoder = model, encoder
        self.decoding, self.nelbo = decoding, nelbo
        self.batch_size, self.window = batch_size, window
        self.progress = progress
        self._device = next(model.parameters()).device
        self._start = Encoder(encoder.tokenizer, "plain").prompts([""])[0]

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> "HarnessModel":
        """From `pretrained=SOURCE,evaluation.decoding.steps=32,…`; see `create_from_arg_obj`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "HarnessModel":
        """From the harness's own command line.

        Args:
            arg_dict: `pretrained`, a run directory, model folder or hub id; any other name is a key
                of our configuration, over that of the run.
            additional_config: the harness's `batch_size` and `device`.

        Raises:
            UserError: no such model, or an unknown key.
        """
        given, more = dict(arg_dict), additional_config or {}
        source = given.pop("pretrained", None)
        if not source:
            raise ConfigurationError("model_args needs pretrained=…, the model that is evaluated")
        if given.pop("trust_remote_code", False):
            given["prepare.trust_remote_code"] = True
        overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
        base = RunDirectory.existing(str(source)).read_config() if is_run(str(source)) else {}
        config = validate(merge_overlay(base, read_config([], overrides)))
        subject = open_subject(str(source), config)
        section = config.evaluation
        size = more.get("batch_size") or section.batch_size
        if not str(size).isdecimal():
            raise ConfigurationError(f"batch_size {size!r}: give a number; it is not found here")
        device = torch.device(more.get("device") or "cpu")
        if device.type == "cuda" and not torch.cuda.is_available():
            device = torch.device("cpu")  # cuda:0 is the harness's default everywhere
        return cls(
            subject.load(device),
            subject.encoder,
            section.decoding,
            section.nelbo,
            batch_size=int(size),
            window=subject.positions or 2048,
            progress=True,
        )

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether greedy decoding of its length writes it.

        Spaces at the end of a context belong to the continuation, which so starts with a word as
        tokenizers cut it. An empty continuation has 0 and True.
        """
        texts = [moved_spaces(*request.args) for request in requests]
        contexts = self._contexts([context for context, _ in texts])
        pairs = list(zip(contexts, self._ids([text for _, text in texts]), strict=True))
        numbers = [request.doc_id or 0 for request in requests]
        return self._scored(pairs, numbers, greedy=True)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole texts, the sum over windows that do not overlap.

        Windows are the harness's own: each sees one token before it, the last of a long text more.
        """
        pairs, numbers, owners = [], [], []
        texts = self._ids([request.args[0] for request in requests])
        for owner, (request, ids) in enumerate(zip(requests, texts, strict=True)):
            windows = get_rolling_token_windows(ids, -1, self.window, 1)
            for index, window in enumerate(map(make_disjoint_window, windows)):
                context, tokens = window if index else (self._start, window[1])
                pairs.append((list(context), list(tokens)))
                numbers.append((request.doc_id or 0) + (index << 32))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._scored(pairs, numbers), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Responses, cut at their first EOS and at the first of the request's stop strings.

        A response has the request's `max_gen_toks`, else `response_length`, else the harness's 256
        tokens. A request that samples (`do_sample`, or a temperature above 0) brings temperature,
        top-p and top-k along; repeats of a request are rollouts of their own.
        """
        groups: dict[tuple[DecodingSection, int], list[int]] = defaultdict(list)
        repeats: Counter[tuple[Any, ...]] = Counter()
        for place, request in enumerate(requests):
            address = (request.task_name, request.doc_id, request.idx)
            groups[self._settings(request.args[1]), repeats[address]].append(place)
            repeats[address] += 1
        contexts = self._contexts([request.args[0] for request in requests])
        texts = [""] * len(requests)
        with self._bar("decoding", len(requests)) as advance:
            for (settings, rollout), places in groups.items():
                places.sort(key=lambda place: len(contexts[place]))
                for start in range(0, len(places), self.batch_size):
                    part = places[start : start + self.batch_size]
                    responses = generate(
                        self.model,
                        [contexts[place] for place in part],
                        settings,
                        numbers=[requests[place].doc_id or 0 for place in part],
                        rollout=rollout,
                        batch_size=self.batch_size,
                    )
                    for place, response in zip(part, responses, strict=True):
                        until = requests[place].args[1].get("until")
                        text = response_text(
                            self.encoder.tokenizer, response, self.model.shape.eos_token_id
                        )
                        texts[place] = cut(text, until)
                    advance(len(part))
        return texts

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation in the tokenizer's template, turns stripped as in training.

        Raises:
            ConfigurationError: the tokenizer has no chat template.
        """
        if not getattr(self.encoder.tokenizer, "chat_template", None):
            raise ConfigurationError(
                "the model's tokenizer has no chat template; evaluate it without one"
            )
        turns = [{**turn, "content": turn["content"].strip()} for turn in chat_history]
        return str(
            self.encoder.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template that `apply_chat_template` writes, for the harness's records."""
        return getattr(self.encoder.tokenizer, "chat_template", None) if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer, for the harness's records."""
        return str(self.encoder.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What a result depends on, for the harness's records."""
        causal = self.model.shape.causal
        return {
            "bound": "exact_likelihood" if causal else "nelbo",
            "decoding": self.decoding.model_dump(),
            "nelbo": self.nelbo.model_dump(),
            "model_num_parameters": sum(weight.numel() for weight in self.model.parameters()),
        }

    def _scored(
        self, pairs: Sequence[Pair], numbers: Sequence[int], *, greedy: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and with `greedy` whether it would be written."""
        results = [(0.0, True)] * len(pairs)
        order = sorted(
            (place for place, (_, continuation) in enumerate(pairs) if continuation),
            key=lambda place: sum(map(len, pairs[place])),
        )
        shape = self.model.shape
        with self._bar("likelihoods", len(order)) as advance:
            for start in range(0, len(order), _ROWS):
                part = order[start : start + _ROWS]
                rows = collate(
                    [[*pairs[place][0], *pairs[place][1]] for place in part],
                    [len(pairs[place][0]) for place in part],
                    [numbers[place] for place in part],
                    pad_token_id=shape.pad_token_id,
                    eos_token_id=shape.eos_token_id,
                ).to(self._device)
                nats = choice_nats(
                    self.model,
                    shape.mask_token_id,
                    rows,
                    causal=shape.causal,
                    exact_up_to=self.nelbo.exact_up_to,
                    draws=self.nelbo.draws,
                    batch_size=self.batch_size,
                    guidance=self.decoding.guidance,
                ).per_row
                written = [False] * len(part)
                if greedy:
                    written = gives_back(
                        self.model,
                        rows,
                        batch_size=self.batch_size,
                        guidance=self.decoding.guidance,
                    )
                for place, value, same in zip(part, nats.tolist(), written, strict=True):
                    results[place] = (-value, same)
                advance(len(part))
        return results

    def _settings(self, options: Mapping[str, Any]) -> DecodingSection:
        """The sampler's settings for one request."""
        given = {name: value for name, value in options.items() if value is not None}
        lengths = [given[name] for name in _LENGTHS if name in given]
        length = lengths[0] if lengths else self.decoding.response_length or _HARNESS_LENGTH
        update: dict[str, Any] = {"response_length": length}
        if given.get("do_sample", bool(given.get("temperature"))):
            update |= {name: given[name] for name in ("temperature", "top_p") if name in given}
            if given.get("top_k", 0) > 0:  # others write 0 or -1 for all tokens
                update["top_k"] = given["top_k"]
        try:
            return DecodingSection.model_validate({**self.decoding.model_dump(), **update})
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise ConfigurationError(
                f"generation_kwargs of the task: {place}: {error.errors()[0]['msg']}"
            ) from error

    def _contexts(self, texts: list[str]) -> list[list[int]]:
        """Ids of contexts, after what the tokenizer puts before a text, once."""
        start = self._start
        return [ids if ids[: len(start)] == start else start + ids for ids in self._ids(texts)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts as they stand: of responses, without their EOS."""
        return [ids[:-1] for ids in self.encoder.responses(texts)]

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Advances a bar on stderr, if one is wanted."""
        with Progress(console=Console(stderr=True), disable=not self.progress) as bar:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text up to the first of the stop strings."""
    for stop in [until] if isinstance(until, str) else until or ():
        if stop:
            text = text.partition(stop)[0]
    return text


def moved_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Spaces at the end of a context, at the start of the continuation instead."""
    bare = context.rstrip(" ")
    return bare, context[len(bare) :] + continuation
