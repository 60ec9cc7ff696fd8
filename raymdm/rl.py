"""raymdm rl -c FILE … : train a model from verified rewards of its own responses.

    raymdm rl -c base -c tasks/sorting_three -c rl/mdpo --set model.init_from=runs/base/model \
        --set run_dir=runs/mdpo

A run directory as `raymdm train` leaves one, with the columns of reinforcement learning in
metrics.parquet, their curves in rl.html, and sample rollouts in samples/.

    raymdm rl filter runs/base --out over-denoising.jsonl

writes the list of training prompts that a model over-denoises, for `policy.prompts`.
"""
