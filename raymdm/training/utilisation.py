"""Model FLOPs utilisation (MFU): what a step needs over what the devices could do in its time.

Counted as in PaLM (arXiv 2204.02311, appendix B): three times the forward pass's matrix products,
attention included, whatever is computed again to save memory. Here the head counts only where a
token is predicted.
"""

import re

import numpy as np
import torch

from raymdm.config import Config
from raymdm.models import ModelShape

# Dense bf16 operations per second in 10¹², from the makers' data sheets, by a part of the name;
# of two parts that fit, the first one counts.
_PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "A6000": 155.0,
}


def peak_operations(device: torch.device, config: Config) -> float:
    """Operations per second of a device at its best; NaN where that is not known.

    Known are bf16 on the GPUs of a list; of CPUs, and of fp32 on GPUs, no data sheet says enough.
    """
    if device.type != "cuda" or config.training.precision != "bf16":
        return float("nan")
    name = torch.cuda.get_device_name(device)
    return next(
        (1e12 * peak for part, peak in _PEAKS.items() if re.search(rf"\b{part}\b", name)),
        float("nan"),
    )


def step_operations(shape: ModelShape, lengths: np.ndarray, predicted: float) -> float:
    """Operations of a training step on these rows, forward and backward.

    Args:
        shape: of the model.
        lengths: int[B], tokens of each row that goes through the model, padding not counted.
        predicted: tokens that are predicted, over all rows.
    """
    width = shape.heads * shape.head_width
    key_value_width = shape.key_value_heads * shape.head_width
    per_layer = shape.hidden_size * (2 * width + 2 * key_value_width + 3 * shape.intermediate_size)
    products = shape.layers * per_layer * float(lengths.sum())
    products += shape.layers * 2 * width * float((lengths.astype(np.float64) ** 2).sum())
    products += shape.hidden_size * shape.vocabulary_size * predicted
    return 6.0 * products
