"""Reinforcement learning of a masked model on Ray: rollouts, their rewards, updates; `raymdm rl`.

The mathematics is `raymdm.policy`'s. Doors: `worker.train_policy` (a worker's run, as
`raymdm.training` starts it), `job.make_policy_job`, `filter.filter_prompts` (which prompts
over-denoise).
"""
