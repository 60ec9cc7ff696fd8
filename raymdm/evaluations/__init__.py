"""What a trained model writes, and how good that is: decoding over Ray, scores, pages to look at.

Doors: `subject.open_subject` (run directory, model folder or hub id -> what is evaluated),
`pool.run_chunks` (items -> records, in this process or by Ray actors), `run.evaluate_run` and
`run.evaluate_rows` (rows -> scores), `harness.run_harness` (lm-evaluation-harness), `report` (the
figures of an evaluation -> `report.html`), `viewer` (a trace -> one page per item).
"""
