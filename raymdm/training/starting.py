"""The model that a run starts from: its shape checked against the data, its weights, its shards."""

import os
import shutil

import torch
import torch.distributed

from raymdm.config import Config
from raymdm.data.manifest import Manifest
from raymdm.errors import CheckpointError, ConfigurationError
from raymdm.models import (
    Backbone,
    Execution,
    ModelShape,
    SeededWeights,
    SpecialTokens,
    Weights,
    assemble,
    load_shape,
    open_weights,
)
from raymdm.models.initial import shape_from_config
from raymdm.models.lora import add_adapters
from raymdm.models.weights import PRECISIONS, FolderWeights
from raymdm.training.engine import deepspeed_config, import_deepspeed
from raymdm.training.seeds import seed_of


def special_tokens(manifest: Manifest) -> SpecialTokens:
    """Those of the prepared data's tokenizer."""
    return SpecialTokens(manifest.mask_token_id, manifest.eos_token_id, manifest.pad_token_id)


def model_shape(config: Config, manifest: Manifest) -> ModelShape:
    """Shape of the run's model, checked against the data's tokenizer.

    Raises:
        CheckpointError: a starting model whose vocabulary or special tokens are not the
            tokenizer's, or of the other kind (causal or masked) than the objective trains.
    """
    tokens = special_tokens(manifest)
    causal = config.estimator.objective == "autoregressive"
    source = config.model.init_from
    if source is None:
        return shape_from_config(
            config.model, vocabulary_size=manifest.vocabulary_size, tokens=tokens, causal=causal
        )
    shape = load_shape(source, tokens)
    if shape.causal != causal:
        kind, objective = ("causal", "autoregressive") if shape.causal else ("masked", "masked")
        raise CheckpointError(
            f"model.init_from {source}: it trains as a {kind} model, not with "
            f"estimator.objective {config.estimator.objective}; set estimator.objective to "
            f"{objective}, or start from another model"
        )
    for name in ("mask_token_id", "eos_token_id", "pad_token_id"):
        if getattr(shape, name) != getattr(tokens, name):
            raise CheckpointError(
                f"model.init_from {source}: its {name} is {getattr(shape, name)}, the prepared "
                f"data has {getattr(tokens, name)}; prepare the data with the model's tokenizer"
            )
    if shape.vocabulary_size < manifest.vocabulary_size:
        raise CheckpointError(
            f"model.init_from {source}: {shape.vocabulary_size} embedding rows, but the tokenizer "
            f"has {manifest.vocabulary_size} tokens; prepare the data with the model's tokenizer"
        )
    return shape


def initial_weights(config: Config, shape: ModelShape) -> Weights:
    """The weights a run starts from: the folder's, or new ones from the seed."""
    if config.model.init_from is None:
        return SeededWeights(shape, seed_of(config, "init"), config.model.initializer_std)
    return _stored_weights(config.model.init_from, shape)


def _stored_weights(source: str, shape: ModelShape) -> FolderWeights:
    tokens = SpecialTokens(shape.mask_token_id, shape.eos_token_id, shape.pad_token_id)
    return open_weights(source, tokens)


def initial_model(config: Config, shape: ModelShape) -> Backbone:
    """The plain model that a run starts from, whole, on the CPU, in fp32."""
    return assemble(initial_weights(config, shape))


def trained_model(config: Config, shape: ModelShape, device: torch.device) -> Backbone:
    """The same as the run trains it: in its precision, with its adapters, whole on the device."""
    dtype = PRECISIONS[config.training.precision]
    model = assemble(initial_weights(config, shape), dtype, device)
    return ready_to_train(model, config).to(device)


def sharded_model(config: Config, shape: ModelShape) -> Backbone:
    """The trained model with each weight sharded over the workers as soon as it is there (ZeRO 3).

    One worker at a time holds one whole weight beyond its share; every rank must call it.
    """
    deepspeed = import_deepspeed()
    weights = initial_weights(config, shape)
    # Its dtype comes from this too: DeepSpeed misreads one that is given as an argument.
    settings = deepspeed_config(config, micro_batch=1, accumulation=1)
    with deepspeed.zero.Init(config_dict_or_path=settings):
        model = Backbone(shape)
    first = torch.distributed.get_rank() == 0
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            if first:
                parameter.copy_(weights.tensor(name))
    return ready_to_train(model, config)


def ready_to_train(model: Backbone, config: Config) -> Backbone:
    """The model, changed in place: how it computes, and its adapters if it has any."""
    training = config.training
    model.execution = Execution(
        packed=training.batching == "packed", recompute=training.activation_checkpointing
    )
    model.head.chunk = training.head_chunk
    if config.model.lora.rank is not None:
        add_adapters(model, config.model.lora, seed_of(config, "init"))
    if training.compile:
        for block in model.blocks:
            block.compile()
    return model


def check_start(config: Config, shape: ModelShape) -> str | None:
    """Find what would otherwise fail in a worker, reading next to nothing of the weights.

    Returns:
        The fingerprint of the starting checkpoint where it counts to the end (adapters are trained
        on it, or a policy is held to it), else None.

    Raises:
        CheckpointError: tensors of the starting model are missing, left over or of another size.
        ConfigurationError: blocks cannot be compiled for want of a C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    compiles = config.training.compile and not config.cluster.gpus_per_worker
    if compiles and shutil.which(compiler) is None:
        raise ConfigurationError(
            f"training.compile needs a C++ compiler, and there is no {compiler}; install one, name "
            "it in CXX, or leave training.compile off"
        )
    if config.model.init_from is None:
        return None
    weights = _stored_weights(config.model.init_from, shape)
    counts = config.model.lora.rank is not None or config.policy is not None
    return weights.fingerprint() if counts else None
