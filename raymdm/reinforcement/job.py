"""The run of a policy as a job: its prompts, its rounds, how its rollouts are decoded."""

from dataclasses import dataclass, fields

from raymdm.command import module_paths
from raymdm.config import Config
from raymdm.config.data import TaskSection
from raymdm.config.loading import fingerprint
from raymdm.config.policy import PolicySection, RolloutDecodingSection
from raymdm.data.evaluation import Item, read_items
from raymdm.data.order import Order
from raymdm.decoding import check_decoding
from raymdm.decoding.schedule import block_schedules
from raymdm.errors import ConfigurationError, DataError
from raymdm.evaluations.settings import fixed_decoding
from raymdm.policy.rewards import get_reward
from raymdm.reinforcement.prompt_list import read_prompt_list
from raymdm.tasks import get_task
from raymdm.training.job import Job, make_job
from raymdm.training.run_directory import RunDirectory
from raymdm.training.schedule import total_steps
from raymdm.training.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class PolicyJob(Job):
    """A checked run whose steps are rounds of rollouts.

    Attributes:
        numbers: of the training prompts that rounds are made of, in their own order.
        decoding: of the rollouts, with response length and seed.
        paths: where the program that starts the run imports modules from.
    """

    numbers: tuple[int, ...]
    decoding: RolloutDecodingSection
    paths: tuple[str, ...]

    @property
    def policy(self) -> PolicySection:
        """Of the configuration, which has one."""
        assert self.config.policy is not None
        return self.config.policy

    @property
    def trusts_code(self) -> bool:
        """Whether the tokenizer may run code of its own, as it did when the data was prepared."""
        return bool(self.manifest.prepare.get("trust_remote_code", False))

    @property
    def task(self) -> TaskSection:
        """Of the prepared data."""
        return TaskSection.model_validate(self.manifest.task)

    @property
    def data_fingerprint(self) -> str:
        """Of the prepared data and, where they are not all, of the chosen prompts."""
        if self.numbers == tuple(range(len(self.train))):
            return self.manifest.fingerprint
        return fingerprint({"manifest": self.manifest.fingerprint, "prompts": self.numbers})

    def items(self) -> list[Item]:
        """All training prompts with their references; sample number = place."""
        return read_items(self.data_folder, self.manifest, "train", None)

    def held_out(self) -> list[Item]:
        """The validation prompts that are scored while the run goes on."""
        split = self.manifest.splits.get("validation")
        if split is None or not split.rows:
            return []
        rows = self.config.training.validation_rows
        return read_items(self.data_folder, self.manifest, "validation", rows)


def make_policy_job(config: Config, run: RunDirectory) -> PolicyJob:
    """Check data, model, decoding and rewards against each other; derive what the workers need.

    Raises:
        ConfigurationError, DataError, CheckpointError: what does not fit, and where.
    """
    policy = config.policy
    if policy is None:
        raise ConfigurationError(
            "the configuration has no section policy, which says how to learn from rewards; add "
            "one, e.g. `-c rl/mdpo`"
        )
    if config.data.sources:
        raise ConfigurationError(
            "data.sources feeds supervised training; `raymdm rl` reads its prompts from the train "
            "split of data.folder: leave data.sources out"
        )
    # Its order is replaced: rows of a batch are prompts here.
    training = config.training.model_copy(update={"batch_size": 1})
    job = make_job(config.model_copy(update={"training": training}), run)
    task = get_task(TaskSection.model_validate(job.manifest.task))
    for name in policy.rewards:
        get_reward(name, task)
    items = read_items(job.data_folder, job.manifest, "train", None)
    numbers = list(range(len(items)))
    if policy.prompts is not None:
        numbers = read_prompt_list(policy.prompts, items)
    if len(numbers) < policy.prompts_per_step:
        raise DataError(
            f"{len(numbers)} prompts are fewer than policy.prompts_per_step "
            f"{policy.prompts_per_step}; set a smaller one, or give more prompts"
        )
    order = Order(seed_of(config, "order"), len(numbers), policy.prompts_per_step)
    given = {field.name: getattr(job, field.name) for field in fields(job)}
    given["config"] = fixed_decoding(config, job.manifest)
    check_decoding(given["config"].evaluation.decoding, causal=False)
    given["order"], given["steps"] = order, total_steps(config.training, order.steps_per_epoch)
    return PolicyJob(
        **given,
        numbers=tuple(numbers),
        decoding=rollout_decoding(config, job),
        paths=module_paths(),
    )


def make_job_of(config: Config, run: RunDirectory) -> Job:
    """The job of a configuration, whether rows or rewards train it. Raises as either does."""
    return make_job(config, run) if config.policy is None else make_policy_job(config, run)


def rollout_decoding(config: Config, job: Job) -> RolloutDecodingSection:
    """How rollouts are decoded, with response length and seed filled in.

    Raises:
        ConfigurationError: blocks and steps that do not fit.
    """
    assert config.policy is not None
    given = config.policy.decoding
    filled = {"seed": seed_of(config, "decode")}
    if given.response_length is None:
        filled["response_length"] = job.manifest.splits["train"].longest_response
    decoding = given.model_copy(update=filled)
    check_decoding(decoding, causal=False)
    for length in config.policy.mixture_block_lengths:
        assert decoding.response_length is not None
        block_schedules(with_blocks(decoding, length), decoding.response_length)
    return decoding


def with_blocks(decoding: RolloutDecodingSection, length: int | None) -> RolloutDecodingSection:
    """The same with blocks of another length; None leaves it as it is."""
    return decoding if length is None else decoding.model_copy(update={"block_length": length})
