"""Judgement: evaluation of policies, continual metrics, statistics, figures, reports."""

from evaluation.evaluator import Evaluator
from evaluation.figures import board_figures
from evaluation.metrics import ContinualMetrics, Curve, Visit, continual_metrics
from evaluation.report import write_report
from evaluation.runlog import RunLog, read_run_log
from evaluation.summary import print_summary

__all__ = [
    "ContinualMetrics",
    "Curve",
    "Evaluator",
    "RunLog",
    "Visit",
    "board_figures",
    "continual_metrics",
    "print_summary",
    "read_run_log",
    "write_report",
]
