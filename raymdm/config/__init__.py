"""What a run is: the typed schema, and the merging of YAML files and `a.b=c` overrides into it.

Doors: `load_config` (files and overrides -> `Config`), `Config` (the schema), `dump_yaml`.
This is the lowest floor: it imports neither torch nor Ray.
"""

from raymdm.config.loading import config_files, dump_yaml, load_config, merge_overlay, read_config
from raymdm.config.schema import Config

__all__ = ["Config", "config_files", "dump_yaml", "load_config", "merge_overlay", "read_config"]
