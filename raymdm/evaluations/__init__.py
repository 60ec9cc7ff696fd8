"""What a trained model writes, and how good that is: decoding over Ray, scores, pages to look at.

Doors: `open_subject` (run directory, model folder or hub id -> what is evaluated), `run_chunks`
(items -> records, in this process or by Ray actors), `run.evaluate_run` and `run.evaluate_rows`
(rows -> scores), `viewer.item_trace` and `viewer.write_page` (how one response was denoised).
"""
