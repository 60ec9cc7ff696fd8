"""Keys of `raymdm variance`."""

from pydantic import Field

from raymdm.config.section import Section


class VarianceSection(Section):
    """What is measured, and how much of it. The batch is the run's own: training.batch_size."""

    estimators: list[str] = [
        "standard",
        "multisample2",
        "mirror",
        "rotation4",
        "complement",
        "antithetic",
        "strats",
        "lattice",
        "power",
        "adaptive",
        "ppots",
        "ppots_pole",
        "ppots_lattice",
        "ppots_mirror",
        "ppots_mirror_strats",
        "count",
        "recommended",
        "isad",
        "isad_exact",
        "syrm",
        "ema",
        "clipped",
    ]
    """Presets or files whose estimator section is measured; `configured` is the run's own."""
    forwards: int | None = Field(default=None, ge=1)
    """Your budget of forwards an optimiser step, for the recommendation; null takes the batch."""
    rows: int = Field(default=32, ge=4)
    """Training rows of the decomposition, and of each of the two probes."""
    rates: int = Field(default=16, ge=4)
    """Mask rates of each row in the decomposition."""
    masks: int = Field(default=2, ge=2)
    """Masks of each row and rate."""
    draws: int = Field(default=768, ge=64)
    """Forwards of each of the two count probes: for the densities, and for the predictions."""
    batches: int = Field(default=64, ge=8)
    """Row batches of each estimator, each run twice with other rates and masks."""
    parameters: str = "all"
    """Whose gradient: `all`, `last_block` (and the final norm), or a regular expression searched in
    the parameters' names, for models whose whole gradient is too much."""
    sketch: int = Field(default=1024, ge=16)
    """Numbers a gradient is reduced to, by a random map that keeps inner products."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples of the intervals."""
    workers: int | None = Field(default=None, ge=1)
    """Ray actors at the same time; null fills the cluster. The result does not depend on it."""
