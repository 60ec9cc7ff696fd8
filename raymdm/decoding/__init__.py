"""From prompts to responses: denoising schedules and the greedy low-confidence sampler.

Doors: `generate` (model, prompt ids, settings -> response ids), `block_schedules`, `even_schedule`.
"""

from raymdm.decoding.sampler import Trace, generate
from raymdm.decoding.schedule import block_schedules, even_schedule

__all__ = ["Trace", "block_schedules", "even_schedule", "generate"]
