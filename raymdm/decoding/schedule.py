"""How many tokens are revealed at each denoising step, block by block."""

from raymdm.config.decoding import DecodingSection
from raymdm.errors import ConfigurationError


def even_schedule(tokens: int, steps: int) -> list[int]:
    """`tokens` shared over `steps`: tokens // steps each, the remainder one each to the first
    steps (LLaDA's rule). With more steps than tokens the last steps reveal none.
    """
    each, rest = divmod(tokens, steps)
    return [each + (step < rest) for step in range(steps)]


def fixed_length(settings: DecodingSection) -> int:
    """Tokens of every response. Raises ConfigurationError where none are set."""
    if settings.response_length is None:
        raise ConfigurationError("decoding needs a response_length: one fixed number per task")
    return settings.response_length


def block_schedules(settings: DecodingSection) -> list[list[int]]:
    """The schedule of every block of a response, left to right; the last block may be shorter.

    Raises:
        ConfigurationError: no response length, or steps that cannot be shared by the blocks.
    """
    length = fixed_length(settings)
    block = min(settings.block_length or length, length)
    sizes = [min(block, length - start) for start in range(0, length, block)]
    if settings.steps is None:
        return [even_schedule(size, size) for size in sizes]
    if settings.steps % len(sizes):
        raise ConfigurationError(
            f"evaluation.decoding.steps {settings.steps} cannot be shared by {len(sizes)} blocks "
            f"(response_length {length}, block_length {block}); choose a multiple of {len(sizes)}"
        )
    steps = settings.steps // len(sizes)
    return [even_schedule(size, steps) for size in sizes]
