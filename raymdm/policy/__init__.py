"""MDPO and its baselines: rewards of every denoising step, and what is learned from them.

A round: rollouts with traces (`raymdm.decoding.generate(…, trace=True, log_probabilities=True)`) ->
rewards of every step's text -> advantages within the groups -> rows of the chosen steps -> their
log-probabilities -> the loss. Each stands alone:

- `rewards`: `Verifier` (texts and references -> scores, in a process with a time limit),
  `register_reward`.
- `advantages`: `advantages` (rewards[P, G, S] -> values and which groups are kept), `chosen_steps`.
- `steps`: `whole` (a trace with all steps of its plan), `trainable_steps`, `rows_of_steps` (MDPO);
  `responses`: `rows_of_responses` (diffu-GRPO, coupled-GRPO); both make `rows.PolicyRows`.
- `scoring`: `score` (model, rows -> log-probabilities[R, L]).
- `loss`: `policy_loss`; its docstring says what its gradient is the gradient of.

Nothing is imported here: the processes that compute rewards need no torch.
"""
