"""A report of what was watched, or of one batch: one HTML file that needs nothing else."""

from keras_backprop.report.explanation import explanation_page
from keras_backprop.report.monitor import monitor_page

__all__ = ["explanation_page", "monitor_page"]
