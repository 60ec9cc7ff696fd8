"""Reinforcement learning of a masked model on Ray; the mathematics is `raymdm.policy`'s.

A run's steps are rounds: prompts (`prompts.py`) -> rollouts, by the workers themselves or by actors
(`rollouts.py`, `actors.py`) -> rewards of every step's text in Ray (`judging.py`,
`reward_tasks.py`) -> groups and the rows chosen from them (`rounds.py`) -> updates (`update.py`).
Doors: `job.make_policy_job`, `worker.train_policy` (what `raymdm.training` runs on every worker),
`filter.filter_prompts`.
"""
