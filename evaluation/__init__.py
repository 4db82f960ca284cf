"""Judgement: evaluation of policies, continual metrics, statistics, figures, reports."""

from evaluation.metrics import ContinualMetrics, Curve, Visit, continual_metrics

__all__ = ["ContinualMetrics", "Curve", "Visit", "continual_metrics"]
