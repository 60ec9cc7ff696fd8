"""What Tune's trial processes have in common: kept from one trial to the next, without state."""

import sys
from typing import Any

from ray import tune

from raymdm.command import quiet


class KeptProcess(tune.Trainable):
    """A process for one trial after the other; run directories are the only state."""

    def prepare(self, folder: str) -> None:
        """Once per process: no chatter, and the user's modules are in the driver's folder."""
        quiet(verbose=False)
        sys.path.insert(0, folder)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial needs nothing of the last one."""
        self.config = new_config
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the run directories are the state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the run directories are the state."""
