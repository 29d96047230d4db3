"""The report: one HTML page of a run, or of several beside each other, that can be explored and needs nothing else."""

from __future__ import annotations

from launch.report.write import report

__all__ = ["report"]
