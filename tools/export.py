"""Write a model to a MindIR, ONNX or AIR file, with class names and preprocessing, and check the file.

    python tools/export.py --ckpt_path FILE --format onnx --dst model.onnx
    python tools/export.py --ckpt_path FILE --dst model.onnx --with_preprocess True --with_softmax True
    python tools/export.py --model convnext_tiny.fb_in22k_ft_in1k --pretrained True --dst model.mindir --image_size 224

The file is run back, and its outputs are compared with those of the network. It is kept only if they agree.
"""

from __future__ import annotations

import mindspore as ms
import own_mindcv  # noqa: F401

from mindcv.config import ExportConfig
from mindcv.data import UnreadableImages, find_images, set_pixel_limit
from mindcv.export import EXPORT_SUFFIXES
from mindcv.recipe import read_config
from mindcv.recipe_export import (
    build_export,
    check_export,
    check_export_format,
    export_format,
    image_readers,
    write_export,
)
from mindcv.utils.cli import run_script
from mindcv.utils.device import set_device, set_mode
from mindcv.utils.files import atomic_files


def main() -> None:
    config = read_config(ExportConfig)
    set_device(config.device_target)
    set_mode(ms.PYNATIVE_MODE)
    check_export_format(config)
    set_pixel_limit(config.max_image_pixels)
    found_images = find_images(config.image_path) if config.image_path else []
    unreadable = UnreadableImages(len(found_images), config.skip_corrupt)
    paths = unreadable.leave_out(found_images) if found_images else []
    config, network, class_names = build_export(config)

    with atomic_files(config.dst) as side:
        metadata = write_export(config, network, class_names, side)
        what = f"{config.dst}: {metadata.output} of {config.model}, {len(class_names)} class names"
        if f".{export_format(config)}" not in EXPORT_SUFFIXES:
            print(f"{what}; files of this format are not run back")
            return
        found = check_export(config, network, side, image_readers(paths), unreadable)
    agreement = f"largest difference from the network {found.largest_difference:.1e}"
    if class_names or config.num_classes:
        agreement += f" (of a probability {found.largest_probability_difference:.1e}), "
        agreement += f"same top-1 class for {found.num_images - found.num_other_top1} of them"
    images = f"{'' if paths else 'drawn '}image{'s' if found.num_images > 1 else ''}"
    print(f"{what}; checked on {found.num_images} {images}: {agreement}")
    unreadable.check()


if __name__ == "__main__":
    run_script(main)
