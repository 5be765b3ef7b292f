"""Plots of an analysis of features. They need matplotlib, which the extra `plots` installs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Union

import numpy as np

from mindcv.engine.contact_sheet import short_paths
from mindcv.engine.embedding import Embedding
from mindcv.engine.feature_analysis import FeatureAnalysis
from mindcv.engine.fonts import TextPainter, printable
from mindcv.engine.plots import font_families, require_matplotlib, save_figure
from mindcv.utils.logger import counted

__all__ = ["MAX_LEGEND", "draw_distances", "draw_embeddings"]

MAX_LEGEND = 40  # classes that a legend lists
_MAX_NAME_PIXELS = 260
_MARKERS = "osD^"  # ten colours with each marker


def draw_distances(analyses: Sequence[FeatureAnalysis], path: Union[str, os.PathLike]) -> None:
    """Draw the cosine distances of each block over its depth: a line for each network, with the deviation around it.

    The upper plot shows the hidden layers of the blocks, and the lower plot shows their maps.

    Dotted lines separate the stages if all networks have the same number of blocks in each stage.

    Args:
        analyses: results of one or more networks.
        path: a picture file.
    """
    figure = require_matplotlib().Figure(figsize=(9, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    names = short_paths([analysis.name for analysis in analyses])
    stages = {tuple(layer.stage for layer in analysis.layers) for analysis in analyses}
    for axes, attribute, title in zip(panels, ("hidden", "map"), ("hidden layer (after GELU and GRN)", "map")):
        for analysis, name in zip(analyses, names):
            means = np.array([getattr(layer, attribute) for layer in analysis.layers])
            deviations = np.array([getattr(layer, f"{attribute}_deviation") for layer in analysis.layers])
            depths = np.linspace(0, 1, len(means)) if len(means) > 1 else np.zeros(1)
            (line,) = axes.plot(depths, means, marker="o", markersize=4, label=_shown(name))
            axes.fill_between(depths, means - deviations, means + deviations, color=line.get_color(), alpha=0.15, lw=0)
        if len(stages) == 1:
            _separate_stages(axes, next(iter(stages)))
        axes.set_ylim(0, max(0.55, axes.get_ylim()[1]))
        axes.set_ylabel("mean cosine distance")
        axes.set_title(f"channels of each block's {title}: 0 means that all are alike", fontsize=10)
        axes.grid(alpha=0.3)
    num_images = counted(len(analyses[0].kept), "image")
    panels[1].set_xlabel(f"depth of the block: 0 is the first block, 1 is the last ({num_images})")
    _legend(panels[1], loc="center")
    save_figure(figure, path)


def _separate_stages(axes: Any, stages: Sequence[int]) -> None:
    last = max(len(stages) - 1, 1)
    for index, (stage, following) in enumerate(zip(stages, [*stages[1:], None])):
        if index == 0 or stages[index - 1] != stage:
            place = max((index - 0.5) / last, 0)
            axes.text(place, 0.01, f" stage {stage}", transform=axes.get_xaxis_transform(), color="grey", fontsize=9)
        if following is not None and following != stage:
            axes.axvline((index + 0.5) / last, color="grey", linestyle=":", linewidth=1)


def draw_embeddings(
    embeddings: Sequence[Embedding], labels: np.ndarray, class_names: Sequence[str], path: Union[str, os.PathLike]
) -> None:
    """Draw the images as points in the plane of the first two principal components, a panel for each network.

    The class decides colour and marker. With more than `MAX_LEGEND` classes the colours follow the order of the
    classes, and there is no legend. Images without a class are grey crosses, or dots if no image has a class.

    Args:
        embeddings: one or more embeddings of the same N images.
        labels: label of each image [N]; -1 for none.
        class_names: names of the classes by label.
        path: a picture file.
    """
    columns = math.ceil(len(class_names) / 20) if len(class_names) <= MAX_LEGEND else 0  # of the legend
    width = 6.2 * len(embeddings) + 2.5 * columns
    figure = require_matplotlib().Figure(figsize=(width, 6), layout="constrained")
    panels = figure.subplots(1, len(embeddings), squeeze=False)[0]
    headings = short_paths([embedding.name for embedding in embeddings])
    for axes, embedding, heading in zip(panels, embeddings, headings):
        for label in sorted(set(labels.tolist())):
            chosen = embedding.points[labels == label]
            name = "no class folder" if label < 0 else _shown(class_names[label])
            axes.scatter(*chosen.T, s=22, alpha=0.75, linewidths=0.6, label=name, **_style(label, len(class_names)))
        for number, (share, set_label) in enumerate(zip(embedding.shares, (axes.set_xlabel, axes.set_ylabel)), 1):
            set_label(f"principal component {number} ({100 * share:.1f}% of the variance)")
        axes.set_title(_shown(heading), fontsize=10, parse_math=False)
        axes.grid(alpha=0.3)
    if len(class_names) > MAX_LEGEND:
        without = "; crosses are images without a class folder" if (labels < 0).any() else ""
        figure.suptitle(f"{len(class_names)} classes, coloured in the order of their names{without}", fontsize=10)
    elif class_names:
        _legend(panels[-1], loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, ncols=columns)
    save_figure(figure, path)


def _style(label: int, num_classes: int) -> dict[str, Any]:
    """Return the colour and the marker of a class."""
    from matplotlib import colormaps

    if num_classes == 0:
        return {"color": colormaps["tab10"](0), "marker": "o", "edgecolors": "white"}
    if label < 0:
        return {"color": "grey", "marker": "x"}
    if num_classes > MAX_LEGEND:
        return {"color": colormaps["turbo"](label / (num_classes - 1)), "marker": "o", "edgecolors": "none"}
    marker = _MARKERS[label // 10]
    return {"color": colormaps["tab10"](label % 10), "marker": marker, "edgecolors": "white"}


def _shown(name: str) -> str:
    return TextPainter(15).shortened(printable(name), _MAX_NAME_PIXELS, keep_end=True)


def _legend(axes: Any, **where: Any) -> None:
    """Add a legend. A name such as '$5_$bill' must not be read as a formula."""
    names = axes.get_legend_handles_labels()[1]
    for text in axes.legend(prop={"family": font_families(names), "size": 9}, **where).get_texts():
        text.set_parse_math(False)
