"""Decides: encoders, heads, losses, learner, agent."""
