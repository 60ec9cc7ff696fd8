"""Keys of the sampler: how a response is written."""

from typing import Literal

from pydantic import Field, model_validator

from raymdm.config.section import Section


class DecodingSection(Section):
    """How responses are decoded. The defaults are greedy: block by block, most confident tokens
    first. A causal model (ARM) writes one token a step from left to right instead.
    """

    response_length: int | None = Field(default=None, ge=1)
    """Tokens decoded for every prompt: one fixed number per task, never the gold length. Null takes
    the longest training response of the prepared data."""
    block_length: int | None = Field(default=None, ge=1)
    """Tokens of a block; blocks are decoded left to right. Null: the response is one block."""
    steps: int | None = Field(default=None, ge=1)
    """Denoising steps over the whole response, shared equally by the blocks; null reveals one token
    a step."""
    schedule: Literal["even", "remaining", "linear", "cosine", "power", "log", "exp"] = "even"
    """How many tokens each step reveals: `even` shares them out, the remainder to the first steps
    (LLaDA); `remaining` takes a share of what is still masked (Dream); the others follow a curve of
    the mask ratio (MaskGIT)."""
    schedule_power: float = Field(default=2.0, gt=0)
    """Exponent K of the `power` schedule, mask ratio 1 - r^K after a share r of the steps."""
    confidence: Literal["probability", "margin", "entropy", "random", "shared_order"] = (
        "probability"
    )
    """What ranks the masked positions: probability of the predicted token, its lead over the most
    probable other one (`margin`), negative entropy, or a random order: one for every response
    (`random`) or for all responses to a prompt (`shared_order`). Always of the model's own (guided)
    distribution, before temperature, top-p and top-k."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Parallel decoding: every step reveals all positions of the block whose confidence reaches
    this, at least one. Takes the place of steps and schedule."""
    remasking: Literal["none", "running_max", "last"] = "none"
    """`none`: what is revealed stays. The others are running confidence remasking (RCR, arXiv
    2508.13148): the least confident tokens are masked again, by the greatest confidence that their
    position has had (`running_max`, the paper's rule) or that of its last prediction (`last`)."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the most probable token."""
    sampling: Literal["gumbel", "categorical"] = "gumbel"
    """How a token is drawn above temperature 0: the largest of logits + temperature x Gumbel noise
    (LLaDA), or one number per position through the inverse of the cumulative distribution. Both
    have the same law; their noise differs, and the second needs a fraction of the time with a large
    vocabulary."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw only from the most probable tokens that together have this probability, at the
    temperature; nothing at temperature 0."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw only from so many most probable tokens, and those that equal the last of them."""
    guidance: float = Field(default=0.0, ge=0)
    """Classifier-free guidance w: logits u + (w + 1)(c - u), u those without the prompt; two
    forwards a step. 0 is off."""
    eos: Literal["free", "last", "never"] = "free"
    """`last`: EOS is revealed only after all other tokens of its block (with remasking: is masked
    again before them); `never`: EOS is not written at all."""
    stop_at_eos: bool = True
    """A response whose text up to its first EOS stands is finished, and filled up with EOS; the
    text is the same either way. No say with remasking: no token stands there before the end."""
    cache: Literal["none", "prefix", "dual"] = "none"
    """Approximate: within a block, keys and values of what lies before it (`prefix`), or also after
    it (`dual`), are kept from the block's first step (Fast-dLLM). A causal model always keeps its
    own, which is exact."""
    seed: int = Field(default=0, ge=0)
    """Seed of the noise of temperature and of random order; not the run's seed."""

    @model_validator(mode="after")
    def _choices_fit(self) -> "DecodingSection":
        if self.threshold is not None and self.steps is not None:
            raise ValueError(
                "decoding.threshold reveals as many tokens a step as are confident enough, so "
                "decoding.steps must be null"
            )
        if self.remasking != "none" and (self.threshold is not None or self.cache != "none"):
            raise ValueError(
                f"decoding.remasking {self.remasking} masks tokens again by a schedule, anywhere "
                "in the response; it goes with neither decoding.threshold nor decoding.cache"
            )
        if self.threshold is not None and self.confidence in (
            "entropy",
            "random",
            "shared_order",
        ):
            raise ValueError(
                f"decoding.threshold needs a confidence between 0 and 1, not {self.confidence}; "
                "use probability or margin"
            )
        return self
