"""Reinforcement learning over denoising steps: the job behind `raymdm rl`."""
