"""Pictures of an analysis: feature maps, distances and embeddings."""

import numpy as np
import pytest
from PIL import Image

from mindcv.engine.analysis_plots import MAX_LEGEND, _style, draw_distances, draw_embeddings
from mindcv.engine.embedding import Embedding
from mindcv.engine.feature_analysis import DrawnMaps, FeatureAnalysis, LayerDistance
from mindcv.engine.feature_maps import draw_feature_maps, scaled_channels

PLAIN = ([0, 0, 0], [255, 255, 255])


def analysis(name, maps, num_images=1):
    layers = tuple(LayerDistance(f"feature.{2 * s + 1}.0", s, 0, 0.1 * s, 0.01, 0.5, 0.0) for s in range(4))
    image = np.zeros((3, 16, 16), np.float32)
    image[0] = 1
    drawn = tuple(DrawnMaps(f"images/{number}.png", image, maps) for number in range(num_images))
    return FeatureAnalysis(name, layers, None, tuple(range(num_images)), drawn)


def test_scaled_channels_divides_each_map_by_its_largest_absolute_value(rng):
    maps = rng.standard_normal((5, 3, 4)).astype(np.float32)
    maps[2] = 0
    found = scaled_channels(maps)
    assert np.abs(found).max((1, 2)).tolist() == [1, 1, 0, 1, 1]
    np.testing.assert_allclose(found[1], maps[1] / np.abs(maps[1]).max(), rtol=1e-6)
    np.testing.assert_array_equal(scaled_channels(-7 * maps[1:2]).round(5), -scaled_channels(maps[1:2]).round(5))


@pytest.mark.parametrize(("num_networks", "num_images"), [(1, 1), (2, 1), (2, 3)])
def test_draw_feature_maps_draws_a_row_for_each_image_and_network(tmp_path, num_networks, num_images):
    maps = [np.zeros((channels, side, side), np.float32) for channels, side in ((4, 4), (8, 2), (70, 2), (3, 1))]
    maps[0][1], maps[0][2] = 9, -0.5
    analyses = [analysis(f"{number}.ckpt", maps, num_images) for number in range(num_networks)]
    draw_feature_maps(analyses, [PLAIN] * num_networks, tmp_path / "m.png")
    grid = 8 * 37 + 1
    with Image.open(tmp_path / "m.png") as sheet:
        assert sheet.size == (12 + 5 * (grid + 12), 40 + num_networks * num_images * (40 + grid + 12))
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    for row in range(num_networks * num_images):
        top, left = 80 + row * (40 + grid + 12), 12 + grid + 12
        assert pixels[top + 100, 12 + 100].tolist() == [255, 0, 0], "the image"
        cells = [pixels[top + 1 + 18, left + 1 + 37 * channel + 18].tolist() for channel in range(3)]
        assert pixels[top + 20, left + 37].max() < 60 and pixels[top + 37, left + 20].max() < 60, "borders"
        assert cells == [[255, 255, 255], [190, 30, 40], [30, 80, 180]], "zero, positive and negative"


def test_draw_distances_writes_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    draw_distances([analysis("$a_$b.ckpt", [])], tmp_path / "one.png")
    draw_distances([analysis("a.ckpt", []), analysis("x" * 300, [])], tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.size == two.size == (990, 770)


@pytest.mark.parametrize("num_classes", [0, 2, MAX_LEGEND, MAX_LEGEND + 1])
def test_draw_embeddings_draws_a_panel_for_each_network(tmp_path, rng, num_classes):
    pytest.importorskip("matplotlib")
    labels = np.arange(-1, num_classes)
    found = [Embedding(name, rng.standard_normal((len(labels), 2)), (0.6, 0.2)) for name in ("a", "b")]
    names = [f"class $x_{{{number}}}$" for number in range(num_classes)]
    draw_embeddings(found[:1], labels, names, tmp_path / "one.png")
    draw_embeddings(found, labels, names, tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width - one.width == round(6.2 * 110)


def test_style_tells_all_classes_of_a_legend_apart():
    pytest.importorskip("matplotlib")
    styles = {(_style(label, MAX_LEGEND)["color"], _style(label, MAX_LEGEND)["marker"]) for label in range(MAX_LEGEND)}
    assert len(styles) == MAX_LEGEND
