"""The zero-tuning suite's picture: performance profiles, and every setting's ratio by contender."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.lab.contenders import DEFAULT
from launch.lab.picture import COLOURS, GREY, curve, labelled, legend, panels, whole_ticks
from launch.lab.suite_contenders import BASELINES
from launch.lab.suite_run import Result
from launch.lab.suite_score import profile

_LOWEST, _HIGHEST = 0.2, 40.0


def draw(results: Sequence[Result], labels: Sequence[str]) -> Figure | None:
    """Profiles on the left; on the right the ratios of the default, or of the first contender where it is not there."""
    left, right = panels(2, 2, (13.0, 5.0))
    _profiles(left, results, labels)
    _settings(right, results, DEFAULT if DEFAULT in labels else BASELINES[0])
    return left.get_figure(root=True)


def _profiles(panel: Axes, results: Sequence[Result], labels: Sequence[str]) -> None:
    """Of each contender, over the settings it took part in."""
    title = "Part of the settings within a ratio of the best tuned"
    labelled(panel, title, "ratio of updates", "part of its settings", xscale="log")
    at = np.geomspace(_LOWEST, _HIGHEST, 300)
    for index, label in enumerate(labels):
        ratios = [result.scores[label].ratio for result in results if label in result.scores]
        curve(panel, at, profile(ratios, list(at)), f"{label} ({len(ratios)})", index, drawstyle="steps-post")
    panel.axvline(1.0, color=GREY, linewidth=1.0)
    panel.set_ylim(-0.02, 1.02)
    whole_ticks(panel.xaxis)
    legend(panel, fontsize=8, loc="lower right")


def _settings(panel: Axes, results: Sequence[Result], label: str) -> None:
    """A dot a setting: task by task, coloured by its staleness, larger with more workers."""
    labelled(panel, f"Ratio of “{label}” in every setting", "", "ratio of updates", yscale="log")
    names = list(dict.fromkeys(result.setting.task.name for result in results))
    kinds = list(dict.fromkeys(result.setting.kind for result in results))
    for index, kind in enumerate(kinds):
        some = [result for result in results if result.setting.kind == kind and label in result.scores]
        at = [names.index(r.setting.task.name) + 0.15 * (index - (len(kinds) - 1) / 2) for r in some]
        sizes = [20.0 + 4.0 * result.setting.workers for result in some]
        ratios = [result.scores[label].ratio for result in some]
        panel.scatter(at, ratios, s=sizes, color=COLOURS[index % len(COLOURS)], label=kind, alpha=0.8)
    panel.axhline(1.0, color=GREY, linewidth=1.0)
    panel.set_xticks(range(len(names)), names, rotation=20)
    whole_ticks(panel.yaxis)
    legend(panel, fontsize=8)
