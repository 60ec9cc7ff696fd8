"""What a user can have got wrong in a sweep, found before its first trial."""

from pathlib import Path

from raymdm.config import Config
from raymdm.data.manifest import read_manifest
from raymdm.errors import CheckpointError
from raymdm.evaluations.run import check_evaluation
from raymdm.reinforcement.job import make_job_of
from raymdm.sweeps import manifest, search_record
from raymdm.sweeps.calibration import CALIBRATION
from raymdm.sweeps.design import Trial
from raymdm.training import RunDirectory
from raymdm.verdict.search import NAME as SEARCH_NAME


def check_folder(config: Config) -> None:
    """Whether the sweep's folder is free, or holds this sweep.

    Raises:
        CheckpointError: it holds something else, another question or another search.
    """
    folder = Path(config.run_dir).absolute()
    ours = any((folder / name).is_file() for name in (manifest.NAME, CALIBRATION, SEARCH_NAME))
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise CheckpointError(f"{folder} is not empty and is no sweep; choose another run_dir")
    manifest.check_question(config, folder)
    if config.sweep.search is not None:
        search_record.SearchRecord(config, folder)


def check_arms(trials: list[Trial]) -> None:
    """Whether every arm and setting can be trained and scored on its data.

    Raises:
        UserError: what does not fit, and where.
    """
    checked = set()
    for trial in trials:
        kind = (trial.arm, str(trial.settings))
        if kind not in checked:
            make_job_of(trial.config, RunDirectory(trial.config.run_dir))
            check_evaluation(trial.config)
            checked.add(kind)


def check_runs(trials: list[Trial]) -> None:
    """Whether the runs that are there are those of these trials.

    Raises:
        CheckpointError: a run of another configuration, or of other data.
    """
    for trial in trials:
        run = RunDirectory(trial.config.run_dir)
        if run.config.exists():
            run.check_same(trial.config)
            run.check_data(trial.config, read_manifest(trial.config.data.folder).fingerprint)
