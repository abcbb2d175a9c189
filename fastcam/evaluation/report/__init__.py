"""A page about a model: its pictures and maps in one HTML file, failures first, and what is suspicious."""

from fastcam.evaluation.report.write import Report, write_report

__all__ = ["Report", "write_report"]
