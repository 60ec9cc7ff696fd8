"""Where a measurement runs and in what precision; nothing here needs Ray or DeepSpeed."""

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait_for_device() -> None:
    """Until everything that was handed to the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
