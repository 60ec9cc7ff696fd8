"""From prompts to responses: schedules, confidence, remasking, blocks, caches; left to right too.

Doors: `generate` (model, prompt ids, settings -> response ids, and the traces), `infill` (masks
anywhere), `check_decoding` (whether settings can work, without a model), `Trace` (every step of one
response).

Start reading at `sampler.py`, which narrates a step; each of its parts is a small module: what is
written at all (`canvas`), when (`schedule`), from which logits (`forward`), which token (`sampling`,
`noise`) with what confidence (`confidence`), and which of them stand (`choosing`).
"""

from raymdm.decoding.generate import check_decoding, generate, infill
from raymdm.decoding.schedule import block_schedules, even_schedule
from raymdm.decoding.trace import Trace

__all__ = ["Trace", "block_schedules", "check_decoding", "even_schedule", "generate", "infill"]
