"""A run's model as others can use it: a Hugging Face folder with a card that tells its story.

Doors: `export_run` (run directory -> folder), `model_card`. The verb is `raymdm export`.
"""

from raymdm.exports.card import model_card
from raymdm.exports.folder import export_run

__all__ = ["export_run", "model_card"]
