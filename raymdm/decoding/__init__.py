"""From prompts to responses: denoising schedules, low-confidence and left-to-right decoding.

Doors: `generate` (model, prompt ids, settings -> response ids), `check_decoding` (whether settings
can work, without a model), `block_schedules`, `even_schedule`.
"""

from raymdm.decoding.sampler import Trace, check_decoding, generate
from raymdm.decoding.schedule import block_schedules, even_schedule

__all__ = ["Trace", "block_schedules", "check_decoding", "even_schedule", "generate"]
