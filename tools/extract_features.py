"""Write the features of the images of a folder to a file, with file names and labels.

    python tools/extract_features.py --ckpt_path FILE --image_path FOLDER --output features.npz
    python tools/extract_features.py --model convnextv2_atto.fcmae --pretrained True --image_path FOLDER \
        --output features.safetensors

The features are those that `validate.py --probe` measures. The weights of a classifier, of FCMAE pre-training and of an
encoder are accepted.
"""

from __future__ import annotations

import os

import own_mindcv  # noqa: F401

from mindcv.config import PREPROCESSING, ExtractConfig
from mindcv.data import Compose, UnreadableImages, create_transforms, images_in_folder, set_pixel_limit
from mindcv.engine import say_compiling
from mindcv.engine.feature_file import classes_of_sub_folders, write_features
from mindcv.engine.features import FeatureRows, extract_from_files
from mindcv.recipe import prepare_device, read_config
from mindcv.recipe_probe import build_feature_network
from mindcv.recipe_weights import open_backbone_weights
from mindcv.utils.cli import run_script
from mindcv.utils.files import ensure_writable_dir
from mindcv.utils.logger import counted


def main() -> None:
    config = read_config(ExtractConfig)
    in_folder = images_in_folder(config.image_path)
    set_pixel_limit(config.max_image_pixels)
    unreadable = UnreadableImages(len(in_folder), config.skip_corrupt)
    paths = unreadable.leave_out(in_folder)
    prepare_device(config)
    config, _, read_weights = open_backbone_weights(config)

    network = build_feature_network(config, read_weights)
    transform = Compose(create_transforms(**config.subset(*PREPROCESSING)))
    # The output needs as much room on the same disk.
    folder = ensure_writable_dir(os.path.dirname(os.path.realpath(config.output)))
    rows = FeatureRows(network.num_features, folder)
    say_compiling("the network")
    kept = extract_from_files(network, paths, transform, config.batch_size, rows, unreadable.add)
    if kept:
        files = [os.path.relpath(paths[index], config.image_path) for index in kept]
        labels, class_names = classes_of_sub_folders(files)
        weights = os.path.basename(config.ckpt_path) or config.model
        metadata = {"model": config.model, "weights": weights, **config.subset(*PREPROCESSING)}
        write_features(config.output, rows, labels, files, class_names, metadata)
        found = f"{counted(len(files), 'image')}, {rows.num_features} features, {counted(len(class_names), 'class')}"
        print(f"{config.output}: {found}")
    unreadable.check()


if __name__ == "__main__":
    run_script(main)
