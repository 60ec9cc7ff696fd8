"""Policy optimisation as runs on Ray: rollouts, rewards, training, and what they leave behind."""
