"""Score responses that were made elsewhere: no model, no likelihood, the same figures."""

import time
from pathlib import Path

import pandas as pd

from raymdm.config import Config
from raymdm.data.evaluation import Item
from raymdm.evaluations.predictions import read_predictions
from raymdm.evaluations.run import Evaluation, write_scores
from raymdm.evaluations.scoring import judged
from raymdm.evaluations.summary import summarize
from raymdm.tasks import get_task


def evaluate_predictions(file: Path, gold: Path | None, config: Config, folder: Path) -> Evaluation:
    """Score the predictions of a file by the task of the configuration.

    Writes `items.parquet` and `scores.json` into the folder, which is made where it is missing.

    Args:
        file: the predictions.
        gold: the rows that they answer, by id or else by place; None where the file has both.
        config: `task`.
        folder: for the results.

    Raises:
        DataError: a file that is missing or broken, or predictions that no gold row belongs to.
    """
    started = time.monotonic()
    task = get_task(config.task)
    predictions = read_predictions(file, gold, task)
    table = pd.DataFrame(
        judged(task, each.text, Item(number, each.id, [], [], dict(each.reference)))
        for number, each in enumerate(predictions.items)
    )
    summary = summarize(table, None, task, rows=file.name, seconds=time.monotonic() - started)
    summary["predictions_without_gold"] = predictions.without_gold
    summary["gold_without_prediction"] = predictions.without_prediction
    found = Evaluation(summary, table, {})
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(folder, found)
    return found
