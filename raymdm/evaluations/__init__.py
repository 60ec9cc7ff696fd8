"""From a trained model to its responses and scores, in this process or over a Ray cluster.

Doors: `open_subject` (run directory, model folder or hub id -> what is evaluated), `run_chunks`
(work on many items, by the actors of a cluster or here), `ResultFile` (rows that survive a cut).
"""
