"""Keys of reinforcement learning: how rollouts are made, and what is learned from them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raymdm.config.decoding import DecodingSection
from raymdm.config.section import Section

_OF_MDPO = (
    "advantage",
    "sample_train_steps",
    "tokens",
    "confidence_weights",
    "length_factor",
)


class RolloutDecodingSection(DecodingSection):
    """How rollouts are decoded: as `evaluation.decoding`, but drawn at a temperature, with the same
    number of steps in every rollout, and from whole forwards.
    """

    temperature: float = Field(default=0.4, ge=0)
    """Of the rollouts and of the policy that is trained: probabilities are those at this
    temperature."""

    @model_validator(mode="after")
    def _can_be_scored_again(self) -> "RolloutDecodingSection":
        if self.seed:
            raise ValueError(
                "policy.decoding.seed has no say: rollouts draw from the stream `decode` of the "
                "run's seed; leave it at 0, or give stream_seeds.decode"
            )
        if self.temperature == 0:
            raise ValueError(
                "policy.decoding.temperature 0 draws nothing: all rollouts of a prompt would be "
                "one, without probabilities; give it a value above 0"
            )
        if self.cache != "none":
            raise ValueError(
                f"policy.decoding.cache {self.cache} draws tokens from approximate logits, and "
                "training computes the exact ones: set it to none"
            )
        if self.threshold is not None:
            raise ValueError(
                "policy.decoding.threshold gives every rollout a number of steps of its own, and "
                "advantages compare rollouts step by step: set it to null and give steps"
            )
        return self


class RolloutsSection(Section):
    """Who makes the rollouts, and how far ahead of the training."""

    actors: int | None = Field(default=None, ge=1)
    """Ray actors that roll out, each with a model of its own and of a worker's size
    (cluster.cpus_per_worker, gpus_per_worker); they get the weights after every round of updates.
    null: the training workers roll out themselves, each its own share, with the weights that they
    have (not with ZeRO 3). It does not change the result."""
    batch_size: int = Field(default=64, ge=1)
    """Rollouts decoded together; it does not change the result."""
    staleness: int = Field(default=0, ge=0)
    """Rounds of updates that the weights of a rollout are behind those it trains: actors roll out
    ahead while the workers train. 0 waits for the newest weights."""


class PolicySection(Section):
    """Policy optimisation from verified rewards: MDPO (arXiv 2508.13148) and two baselines. The
    defaults are the paper's; the baselines ask for `normalisation: mean`.
    """

    loss: Literal["mdpo", "diffu_grpo", "coupled_grpo"] = "mdpo"
    """What is scored. `mdpo`: the predictions of chosen denoising steps, on what the model read at
    those steps. `diffu_grpo` (d1, arXiv 2504.12216): the final response, wholly masked, in one
    pass. `coupled_grpo` (DiffuCoder, arXiv 2506.20639): the same, averaged with a pair of
    complementary masks in which every token is hidden once."""
    group_size: int = Field(default=8, ge=1)
    """G, rollouts of one prompt; their rewards are compared with each other."""
    prompts_per_step: int = Field(default=4, ge=1)
    """Prompts of one step of the run (training.steps counts them), over all workers: group_size
    times as many rollouts, then `updates` updates of the weights."""
    updates: int = Field(default=1, ge=1)
    """Optimiser updates of a step, each from all rows of its rollouts; from the second one on the
    ratios to the rollouts' probabilities, and their clipping, matter."""
    prompts: str | None = None
    """File with the prompts to train on, such as `raymdm rl filter` writes; null takes all training
    rows."""
    incremental_training: bool = False
    """Before each epoch decode all prompts with `evaluation.decoding` and the weights as they are;
    the epoch trains on those that over-denoise, right at some step and wrong at the end."""
    mixture_block_lengths: list[Annotated[int, Field(ge=1)]] = []
    """Draw the block length of every group of rollouts from these, in place of
    policy.decoding.block_length; empty draws none."""
    rollouts: RolloutsSection = RolloutsSection()
    decoding: RolloutDecodingSection = RolloutDecodingSection()
    rewards: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {"correct": 1.0}
    """Weights of the rewards that are added up: `correct` (the task's score), `format` (an answer
    can be found), `figure:NAME` (a figure of the task, such as sudoku's `figure:blanks_right`), or
    one that your own module registers."""
    reward_seconds: float = Field(default=10.0, gt=0)
    """Time limit of one reward of one text, which counts 0 beyond it."""
    reward_tasks: int = Field(default=2, ge=1)
    """Ray processes of one worker that compute rewards at the same time; they reserve no CPU."""
    advantage: Literal["single", "future", "difference", "difference_and_future"] = (
        "difference_and_future"
    )
    """What a step's prediction is worth, of the reward R[s] of every step: `single` R[s]; `future`
    the mean of all later ones (at the last step its own); `difference` R[s] - R[s-1];
    `difference_and_future` R[s] - R[s-1] + 1 + the mean of the later ones (mdpo)."""
    normalisation: Literal["per_step", "group", "mean"] = "per_step"
    """How the rollouts of a group become comparable: minus the mean and divided by the standard
    deviation over the rollouts at the same step (`per_step`, the paper's: a lone success at an
    early step gets the greatest advantage there is) or over all rollouts and steps (`group`);
    `mean`: minus the mean over the rollouts at the same step only (d1)."""
    sample_train_steps: int = Field(default=8, ge=1)
    """Denoising steps of a group that are trained on: those of the greatest advantages (mdpo)."""
    tokens: Literal["all_masked", "revealed"] = "all_masked"
    """Positions of a step that are trained on: all that were masked, or those of them whose
    prediction the step left standing (mdpo)."""
    confidence_weights: bool = False
    """Weight every position by the probability that the model gave its token in the rollout
    (mdpo)."""
    length_factor: bool = False
    """Multiply the policy term (not the KL term) by length / masked positions, as the published
    code does: steps at which little is masked count more, the last ones most (mdpo)."""
    after_eos: bool = False
    """Train on positions after the first EOS of the text too, which no reward has read."""
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """The ratio of new to old probability is clipped to 1 ± this."""
    beta: float = Field(default=0.02, ge=0)
    """Weight of the KL term, half the squared difference of the log-probabilities from the
    reference model's; 0 needs no reference."""
    prompt_masking: float = Field(default=0.0, ge=0, lt=1)
    """Mask each prompt token with this probability when a response is scored (diffu_grpo; d1 uses
    0.15)."""
    samples: int = Field(default=0, ge=0)
    """Rollouts whose denoising is kept as a page, whenever held-out prompts are scored."""
    mask_ratios: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.2, 0.8], min_length=2, max_length=2
    )
    """Bounds of the first mask's uniform ratio; its partner hides the rest (coupled_grpo)."""

    @model_validator(mode="after")
    def _choices_fit(self) -> "PolicySection":
        kinds = {"prompt_masking": "diffu_grpo", "mask_ratios": "coupled_grpo"}
        read_under = {**dict.fromkeys(_OF_MDPO, "mdpo"), **kinds}
        for name, loss in read_under.items():
            usual = type(self).model_fields[name].default
            if self.loss != loss and getattr(self, name) != usual:
                raise ValueError(
                    f"policy.{name} is read under policy.loss {loss} only, which is {self.loss}; "
                    f"leave it at {usual}"
                )
        if self.mask_ratios[0] > self.mask_ratios[1]:
            raise ValueError("policy.mask_ratios: the smaller one first")
        if self.group_size == 1 and (self.normalisation != "group" or self.loss != "mdpo"):
            raise ValueError(
                "policy.group_size 1 has nothing to compare a rollout with; give 2 or more, or "
                "policy.normalisation group, which compares the steps of one (mdpo)"
            )
        if self.incremental_training and self.rollouts.staleness:
            raise ValueError(
                "policy.incremental_training chooses prompts with the newest weights; set "
                "policy.rollouts.staleness to 0"
            )
        if self.rollouts.staleness and self.rollouts.actors is None:
            raise ValueError(
                "policy.rollouts.staleness lets actors roll out ahead; give policy.rollouts.actors"
            )
        if self.decoding.block_length is not None and self.mixture_block_lengths:
            raise ValueError(
                "give policy.decoding.block_length, or policy.mixture_block_lengths to draw it from"
            )
        if not any(self.rewards.values()):
            raise ValueError("policy.rewards gives no reward a weight; give at least one")
        return self
