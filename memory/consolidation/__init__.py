"""Synaptic consolidation: weights that mattered to earlier games stiffen (EWC and its family)."""

from memory.consolidation.config import METHODS, ConsolidationConfig
from memory.consolidation.gradients import mean_gradients
from memory.consolidation.stack import Consolidation

__all__ = ["METHODS", "Consolidation", "ConsolidationConfig", "mean_gradients"]
