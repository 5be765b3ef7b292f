"""Writes the files of this folder with torch and safetensors. Run it in an empty folder: `python make_files.py`."""

import argparse
import collections
import datetime
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

OLD = {"_use_new_zipfile_serialization": False}


def ramp(*shape, start=0.0, dtype=torch.float32):
    count = int(np.prod(shape))
    return (torch.arange(count, dtype=torch.float64) / 4 + start).to(dtype).reshape(shape)


def network():
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    for position, parameter in enumerate(net.parameters()):
        parameter.data = ramp(*parameter.shape, start=position)
    return net


def training_state():
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.5)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    return {
        "model": weights,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 7,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
        "args": argparse.Namespace(lr=4e-3, output_dir=pathlib.PurePosixPath("out/run"), betas=(0.9, 0.999), resume=""),
        "model_ema": collections.OrderedDict((name, value + 1) for name, value in weights.items()),
        "best": np.float64(81.5),
        "when": datetime.datetime(2024, 5, 6),
        "rng": {"numpy": np.random.RandomState(0).get_state(), "torch": torch.arange(9, dtype=torch.uint8)},
        "seen": {3, 1},
        "raw": b"\x00\xff",
        "counts": collections.defaultdict(int, a=1),
    }


def dtypes():
    kinds = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 complex64 complex128"
    tensors = {kind: ramp(2, 3, start=1.0).mul(8).to(getattr(torch, kind)) for kind in kinds.split()}
    tensors["bool"] = torch.tensor([True, False, True])
    return tensors


def views():
    base = ramp(4, 6)
    with_attribute = nn.Parameter(ramp(2))
    with_attribute.note = "kept beside it"
    return {
        "base": base,
        "transposed": base.T,
        "column": base[1:, 2],
        "every_other": base[::2, 1::3],
        "expanded": ramp(3, 1, start=5.0).expand(3, 4),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(ramp(2, 2)),
        "with_attribute": with_attribute,
    }


def main():
    weights = network().state_dict()
    torch.save(weights, "state_dict.pth")
    torch.save(weights, "state_dict_old.pth", **OLD)
    torch.save(weights, "state_dict_protocol5.pth", pickle_protocol=5)
    torch.save(training_state(), "training_state.pth")
    torch.save(training_state(), "training_state_old.pth", **OLD)
    torch.save(dtypes(), "dtypes.pth")
    torch.save(views(), "views.pth")
    torch.save(views(), "views_old.pth", **OLD)

    save_file({name: value.clone() for name, value in dtypes().items() if name != "complex128"}, "dtypes.safetensors")
    save_file({name: value.clone() for name, value in weights.items()}, "state_dict.safetensors", {"format": "pt"})

    torch.save(network(), "refused_module.pth")
    torch.save({"w": torch.quantize_per_tensor(ramp(3), 0.5, 0, torch.qint8)}, "refused_quantised.pth")
    torch.save({"w": torch.eye(2).to_sparse()}, "refused_sparse.pth")
    torch.save({"w": torch.ones(2).to(torch.float8_e4m3fn)}, "refused_float8.pth")
    torch.jit.script(nn.Linear(2, 2)).save("refused_script.pt")
    save_file({"w": torch.ones(2).to(torch.float8_e4m3fn)}, "refused_float8.safetensors")
    names = list(weights)
    index = {"metadata": {"total_size": 0}, "weight_map": {}}
    for number, part in enumerate((names[:3], names[3:])):
        torch.save({name: weights[name] for name in part}, f"pytorch_model-{number}.bin")
        index["weight_map"].update({name: f"pytorch_model-{number}.bin" for name in part})
    pathlib.Path("pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
