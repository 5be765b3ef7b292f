"""Record the outputs of timm for a variant: `python tests/data/parity/record.py NAME`. It needs timm.

A variant that timm does not have needs its shape: `--depths 2 2 6 2 --dims 40 80 160 320`. The result is NAME.npz
beside this file. README.md describes its content.
"""

import argparse

import numpy as np
import timm
import torch
from parity import FOLDER, image, official_shapes, weight
from timm.models.convnext import ConvNeXt, checkpoint_filter_fn

INPUTS = ((2, 3, 64, 64), (1, 3, 224, 224), (1, 3, 100, 76))


def network(name, depths, dims):
    """Return timm's network with the weights of the rule, its depths and its dims."""
    if depths is None:
        known = timm.create_model(name)
        depths, dims = [len(stage.blocks) for stage in known.stages], [info["num_chs"] for info in known.feature_info]
    is_v2 = name.startswith("convnextv2_")
    options = {"use_grn": True, "ls_init_value": None} if is_v2 else {}
    model = ConvNeXt(depths=tuple(depths), dims=tuple(dims), **options).eval()
    shapes = official_shapes(depths, dims, is_v2)
    state = {key: torch.from_numpy(weight(key, shape).copy()) for key, shape in shapes.items()}
    model.load_state_dict(checkpoint_filter_fn(state, model))
    return model, depths, dims


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="name of the variant, for example convnextv2_atto")
    parser.add_argument("--depths", type=int, nargs=4, help="number of blocks of each stage")
    parser.add_argument("--dims", type=int, nargs=4, help="number of channels of each stage")
    parser.add_argument("--num_inputs", type=int, default=1, help="number of input shapes to record, from 1 to 3")
    args = parser.parse_args()
    model, depths, dims = network(args.name, args.depths, args.dims)
    arrays = {"depths": depths, "dims": dims, "params": sum(p.numel() for p in model.parameters())}
    arrays["inputs"] = INPUTS[: args.num_inputs]
    with torch.no_grad():
        for shape in arrays["inputs"]:
            key, x = f"{shape[0]}x{shape[2]}x{shape[3]}", torch.from_numpy(image(shape))
            maps = model.forward_intermediates(x, intermediates_only=True)
            for stage, feature_map in enumerate(maps):
                arrays[f"{key}/stage{stage}_channel_mean"] = feature_map.mean((2, 3)).numpy()
            arrays[f"{key}/pre_logits"] = model.forward_head(maps[-1], pre_logits=True).numpy()
            arrays[f"{key}/logits"] = model(x).numpy()
    path = FOLDER / f"{args.name}.npz"
    np.savez_compressed(path, **arrays)
    print(path)


if __name__ == "__main__":
    main()
