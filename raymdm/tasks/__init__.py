"""What a task is: how a raw row becomes a prompt and a response, and how an answer is scored.

Doors: `get_task` (name or configuration section -> `TaskSpec`), `register_task` (add your own).
This room imports neither torch nor Ray, so that workers and notebooks start quickly.

A task of your own, registered with `--import my.module`:

    from raymdm.tasks import Example, TaskSpec, register_task

    def shout(section):
        def example(row):
            return Example(row["text"], row["text"].upper(), {"answer": row["text"].upper()})

        def extract(text):
            return text.strip() or None

        def score(text, reference):
            return float(extract(text) == reference["answer"])

        return TaskSpec("shout", example, extract, score)

    register_task("shout", shout)
"""

from raymdm.tasks.registry import get_task, register_task
from raymdm.tasks.spec import PAGE_ROWS, Example, TaskSpec

__all__ = ["PAGE_ROWS", "Example", "TaskSpec", "get_task", "register_task"]
