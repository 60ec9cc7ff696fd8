"""The exceptions that the command line turns into one clear line.

A `UserError` is something the user can mend (exit status 2); a `RunError` is a run that went wrong
(exit status 1). Each message says what was wrong, where, and what to do.
"""


class RaymdmError(Exception):
    """Base of every error raymdm raises on purpose; printed as one line, without a stack trace."""

    exit_status = 1


class UserError(RaymdmError):
    """A mistake in what the user gave: exit status 2."""

    exit_status = 2


class ConfigurationError(UserError):
    """An unknown key, a wrong type or values that contradict each other."""


class DataError(UserError):
    """A data file that is missing, broken or does not fit the model."""


class CheckpointError(UserError):
    """A model folder or run directory that cannot be used as asked."""


class ClusterError(UserError):
    """The request does not fit the cluster that is there."""


class RunError(RaymdmError):
    """A run that failed for reasons that are not the user's input."""


class DivergedError(RunError):
    """The loss became NaN or infinite: an outcome of the run, never retried."""


class StoppedError(RunError):
    """A run that was asked to stop, and did with a checkpoint: the status of a SIGTERM."""

    exit_status = 143


class UnreachableError(RunError):
    """A store of checkpoints that does not answer now: worth another try."""
