"""Backbones and checkpoint folders: LLaDA, Dream, MMaDA, and masked models from causal ones.

Doors: `load_model` (folder or hub id -> module; `module(input_ids, attention_mask)` -> logits,
where `logits[:, i]` predict token i), `build_model` (shape -> new model), `save_model`.
"""

from raymdm.models.backbone import Backbone, Execution
from raymdm.models.cache import KeyValueCache
from raymdm.models.folder import load_model, load_shape, open_weights, save_model
from raymdm.models.initial import build_model
from raymdm.models.shape import ModelShape, SpecialTokens
from raymdm.models.weights import SeededWeights, Weights, assemble

__all__ = [
    "Backbone",
    "Execution",
    "KeyValueCache",
    "ModelShape",
    "SeededWeights",
    "SpecialTokens",
    "Weights",
    "assemble",
    "build_model",
    "load_model",
    "load_shape",
    "open_weights",
    "save_model",
]
