"""Backbones and checkpoint folders: native LLaDA-shaped transformers, bidirectional or causal.

Doors: `load_model` (folder or hub id -> module; `module(input_ids, attention_mask)` -> logits,
where `logits[:, i]` predict token i), `build_model` (shape -> new model), `save_model`.
"""

from raymdm.models.backbone import Backbone, ModelShape
from raymdm.models.folder import load_model, load_shape, save_model
from raymdm.models.initial import build_model

__all__ = ["Backbone", "ModelShape", "build_model", "load_model", "load_shape", "save_model"]
