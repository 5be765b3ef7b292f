"""Builds the workloads of timm on PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import PIL
import timm
import torch
import torch.distributed
from timm.data import ImageDataset, Mixup, create_transform
from timm.optim import param_groups_weight_decay
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, default_collate

from benchmarks.timm_fcmae import DenseFCMAE
from benchmarks.workload import LEARNING_RATE, NUM_CLASSES, WEIGHT_DECAY, Workload, of_loader

__all__ = ["build"]


def build(settings: dict[str, Any]) -> Workload:
    """Build the workload of `settings` (see `benchmarks.options`)."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    if settings["task"] == "train" and settings["processes"] > 1:
        torch.distributed.init_process_group("gloo")
    return _TASKS[settings["task"]](settings)


def _versions() -> dict[str, str]:
    return {"timm": timm.__version__, "torch": torch.__version__, "pillow": PIL.__version__}


def _images(settings: dict[str, Any]) -> torch.Tensor:
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    return torch.randn(shape).to(memory_format=torch.channels_last)


def _model(settings: dict[str, Any]) -> torch.nn.Module:
    model = timm.create_model(settings["model"], num_classes=NUM_CLASSES)
    return model.to(memory_format=torch.channels_last)


def _autocast(settings: dict[str, Any]) -> AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16, enabled=settings["dtype"] == "bfloat16")


def _forward(settings: dict[str, Any]) -> Workload:
    model = _model(settings).eval()
    if settings["compile"]:
        # Freezing packs the weights once for the kernels. PyTorch recommends it for inference on
        # CPU.
        model = torch.compile(model, options={"freezing": True})
    images = _images(settings)

    def step() -> int:
        with torch.no_grad(), _autocast(settings):
            return len(model(images).float().numpy())

    return Workload(step, step, _versions())


def _train(settings: dict[str, Any]) -> Workload:
    model = _model(settings).train()
    groups = param_groups_weight_decay(model, WEIGHT_DECAY)
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=1e-8, fused=True)
    if settings["processes"] > 1:
        model = DistributedDataParallel(model)
    if settings["compile"]:
        model = torch.compile(model)
    images = _images(settings)
    labels = torch.arange(len(images)) % NUM_CLASSES

    def step() -> int:
        with _autocast(settings):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return len(images)

    return Workload(step, step, _versions())


def _pretrain(settings: dict[str, Any]) -> Workload:
    model = DenseFCMAE(settings["model"].removeprefix("fcmae_")).to(memory_format=torch.channels_last).train()
    groups = param_groups_weight_decay(model, WEIGHT_DECAY)
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=1e-8, fused=True)
    if settings["compile"]:
        model = torch.compile(model)
    images = _images(settings)
    side = settings["image_size"] // 32
    num_visible = int(side * side * (1 - settings["mask_ratio"]))
    order = torch.rand(len(images), side * side).argsort(1)
    mask = torch.ones(len(images), side * side).scatter(1, order[:, :num_visible], 0.0).reshape(-1, side, side)

    def step() -> int:
        with _autocast(settings):
            loss = model(images, mask)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return len(images)

    return Workload(step, step, _versions())


class _MixingCollate:
    """Collates and mixes batches in the workers. It is a class because workers may need to pickle it."""

    def __init__(self, num_classes: int):
        self.mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, num_classes=num_classes)

    def __call__(self, samples: list) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mixup(*default_collate(samples))


def _data(settings: dict[str, Any]) -> Workload:
    is_training = settings["pipeline"] == "train"
    transform = _train_transform(settings) if is_training else _eval_transform(settings)
    dataset = ImageDataset(settings["data_dir"], transform=transform)
    loader = DataLoader(
        dataset,
        batch_size=settings["batch_size"],
        shuffle=is_training,
        drop_last=is_training,
        num_workers=settings["workers"],
        persistent_workers=True,
        collate_fn=_MixingCollate(len(dataset.reader.class_to_idx)) if is_training else None,
    )

    def epoch() -> Iterator[tuple]:
        return iter(loader)

    return of_loader(epoch, _versions())


def _train_transform(settings: dict[str, Any]) -> Any:
    return create_transform(
        settings["image_size"],
        is_training=True,
        interpolation="bicubic",
        hflip=0.5,
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        re_mode="pixel",
    )


def _eval_transform(settings: dict[str, Any]) -> Any:
    return create_transform(settings["image_size"], is_training=False, interpolation="bicubic", crop_pct=0.875)


_TASKS = {"forward": _forward, "train": _train, "pretrain": _pretrain, "data": _data}
