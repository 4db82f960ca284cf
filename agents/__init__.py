"""Decides: the agent and its parts: encoders, heads, losses, learner."""
