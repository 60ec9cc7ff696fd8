"""What raymdm itself costs, as ratios and differences measured side by side in one run.

Each measurement is a module with the name that `raymdm bench NAME` has for it: its figures, their
tables, how they are measured, and `bench` (`Request` -> `Report`), which the verb calls. Nothing is
imported here, so that `head`, `packing`, `step`, `decode` and `verdict` run where neither Ray nor
DeepSpeed is installed.

Doors: `train.measure_training` (our worker loop against a bare PyTorch loop), `sweep.measure_sweep`
(seconds of a trial that are not training steps), `estimators.measure_estimators` (variance of every
estimator on trained tiny models), `head.measure_head` (ways to compute the output layer and its
loss), `packing.measure_packing` (padded rows against packed ones), `step.measure_step` (a whole
step against the best matrix product), `decode.measure_decoding` (batches, caches and LLaDA's loop),
`rl.measure_rollouts` (rollouts against their forwards), `rl_rounds.measure_rounds` (where the
seconds of whole rounds go), `loading.measure_loading` (memory of loading in shards),
`verdict.measure_verdict` (coverage and error of the statistics, simulated).
"""
