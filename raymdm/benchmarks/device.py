"""Where a measurement runs; nothing here needs Ray or DeepSpeed."""

import torch


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait_for_device() -> None:
    """Until everything that was handed to the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
