"""Show what the features of one or two networks are like, over the images of a folder.

    python tools/analyze.py --ckpt_path FILE --image_path FOLDER --output_dir FOLDER
    python tools/analyze.py --ckpt_path FILE --image_path FOLDER --output_dir FOLDER --compare_with OTHER_FILE

The tool writes the cosine distance of the channels of each block (a sign of feature collapse), the feature maps of the
first images, and an embedding of the images. The weights of a classifier, of FCMAE pre-training and of an encoder are
accepted.
"""

from __future__ import annotations

import os
from pathlib import Path

import own_mindcv  # noqa: F401

from mindcv.config import AnalyzeConfig
from mindcv.data import UnreadableImages, images_in_folder, set_pixel_limit
from mindcv.engine.analysis_plots import draw_distances, draw_embeddings
from mindcv.engine.embedding import embed, write_embeddings
from mindcv.engine.feature_analysis import write_distances
from mindcv.engine.feature_file import classes_of_sub_folders
from mindcv.engine.feature_maps import draw_feature_maps
from mindcv.engine.plots import require_matplotlib
from mindcv.recipe import prepare_device, read_config
from mindcv.recipe_analysis import analyse_weights, evenly_spaced, weights_to_analyse
from mindcv.utils.cli import run_script
from mindcv.utils.errors import DataError
from mindcv.utils.logger import counted


def main() -> None:
    config = read_config(AnalyzeConfig)
    require_matplotlib()
    found = images_in_folder(config.image_path)
    found = evenly_spaced(found, config.max_images or len(found))
    set_pixel_limit(config.max_image_pixels)
    unreadable = UnreadableImages(len(found), config.skip_corrupt)
    paths = unreadable.leave_out(found)
    configs = weights_to_analyse(config)
    prepare_device(config)

    analyses = []
    for number, own in enumerate(configs):
        # The second network sees the images that the first one could read.
        on_unreadable = unreadable.add if number == 0 else _stop
        configs[number], analysis = analyse_weights(own, paths, on_unreadable, usual_model=configs[0].model)
        paths = [paths[index] for index in analysis.kept]
        analyses.append(analysis)
    folder = Path(config.output_dir)  # nothing is written to it if the images or the weights cannot be read
    write_distances(analyses, folder / "cosine_distance.csv")
    draw_distances(analyses, folder / "cosine_distance.png")
    if config.num_drawn:
        normalizations = [(own.mean, own.std) for own in configs]
        draw_feature_maps(analyses, normalizations, folder / "feature_maps.png")
    files = [os.path.relpath(path, config.image_path) for path in paths]
    labels, class_names = classes_of_sub_folders(files)
    embeddings = [embed(analysis.features, analysis.name) for analysis in analyses]
    write_embeddings(embeddings, files, labels, class_names, folder / "embedding.csv")
    draw_embeddings(embeddings, labels, class_names, folder / "embedding.png")
    for analysis in analyses:
        lowest, images = min(analysis.layers, key=lambda layer: layer.hidden), counted(len(paths), "image")
        print(
            f"{analysis.name}: {images}, lowest cosine distance of a hidden layer {lowest.hidden:.4f} ({lowest.layer})"
        )
    saved = ["cosine_distance.csv", "cosine_distance.png", "embedding.csv", "embedding.png"]
    saved += ["feature_maps.png"] if config.num_drawn else []
    print(f"saved {', '.join(saved)} in '{config.output_dir}'")
    unreadable.check()


def _stop(error: DataError) -> None:
    raise error


if __name__ == "__main__":
    run_script(main)
