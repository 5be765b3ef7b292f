"""Finds published weights by name, downloads them and loads them into a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from mindspore import nn

from mindcv.convert import backbone_name, is_pretraining_name, load_weights
from mindcv.models.pretrained_table import PUBLISHED, PretrainedWeights
from mindcv.utils.checks import check_text
from mindcv.utils.download import cache_root, download
from mindcv.utils.errors import UserError, unknown_name
from mindcv.utils.logger import logger

__all__ = [
    "fetch_pretrained",
    "list_pretrained_tags",
    "load_pretrained",
    "markdown_table",
    "pretrained_options",
    "pretrained_weights",
    "split_tag",
]

# Short summaries of the licences that are not free. The page of the weights has the full text.
_CONDITIONS = {
    "CC-BY-NC-4.0": "no commercial use",
    "DINOv3": "terms of Meta's DINOv3 licence",
    "FAIR-NC": "Meta's FAIR licence for research, no commercial use",
}

_HUB = "https://huggingface.co"


def split_tag(name: str) -> tuple[str, str]:
    """Split `convnext_tiny.fb_in1k` into `("convnext_tiny", "fb_in1k")`. The tag is '' if the name has none."""
    model, _, tag = check_text("model_name", name).partition(".")
    return model, tag


def list_pretrained_tags(model_name: str) -> list[str]:
    """Return the tags of a model's published weights, the default first. The list is empty if there are none.

    `create_model(..., pretrained=True)` takes the model's name with a tag, such as `convnextv2_tiny.fcmae`.

    Raises:
        UserError: the name is not text.
    """
    return [split_tag(weights.name)[1] for weights in _weights_of(model_name)]


def pretrained_weights(name: str) -> PretrainedWeights:
    """Return the entry of published weights in the table.

    Args:
        name: `model.tag`, or `model` for the model's first tag.

    Raises:
        UserError: the model has no published weights, or none with this tag. The message lists the known names.
    """
    model, tag = split_tag(name)
    published = _weights_of(model)
    if not published:
        if is_pretraining_name(model):
            encoder = backbone_name(model)
            raise UserError(
                f"there are no published weights of '{model}', whose authors publish the encoder alone: "
                f"create_model('{encoder}.fcmae', pretrained=True) has it"
            )
        known = sorted({split_tag(weights.name)[0] for weights in PUBLISHED})
        raise UserError(f"there are no published weights of '{model}' (models that have some: {', '.join(known)})")
    if not tag:
        return published[0]
    for weights in published:
        if weights.name == name:
            return weights
    raise UserError(unknown_name(f"tag of {model}'s published weights:", tag, list_pretrained_tags(model)))


def pretrained_options(weights: PretrainedWeights) -> dict[str, Any]:
    """Return the options that the weights determine: the model, the number of classes and the preprocessing."""
    images = weights.preprocessing._asdict()
    images.update(mean=list(images["mean"]), std=list(images["std"]))
    return {"model": split_tag(weights.name)[0], "num_classes": weights.num_classes, "in_channels": 3, **images}


def load_pretrained(network: nn.Cell, name: str) -> None:
    """Fill a network with published weights. The log reports a head or stem that differs from the published one.

    Args:
        network: network of the model in `name`.
        name: name of the weights (see `pretrained_weights`).

    Raises:
        UserError: see `pretrained_weights` and `fetch_pretrained`.
        CheckpointError: the file does not fit the network.
    """
    load_weights(network, fetch_pretrained(pretrained_weights(name)), replace_head=True, adapt_stem=True)


def fetch_pretrained(weights: PretrainedWeights) -> Path:
    """Return the file of the weights. It is downloaded if neither cache holds it.

    The caches are `$MINDCV_HOME/models` (`~/.mindcv/models` by default, as in MindCV) and the Hugging Face cache
    `$HF_HOME/hub`. `$HF_ENDPOINT` replaces the address of Hugging Face. With `HF_HUB_OFFLINE` set, nothing is
    downloaded from there.

    Raises:
        UserError: the file cannot be downloaded, or its digest is wrong. The message says where to put it by hand.
    """
    is_on_hub = weights.url.startswith(f"{_HUB}/")
    file_name = Path(urlsplit(weights.url).path).name
    # Every file on the hub has the same name.
    path = cache_root() / "models" / (f"{weights.name}{Path(file_name).suffix}" if is_on_hub else file_name)
    url = weights.url
    if is_on_hub and not path.is_file():
        found = _in_hub_cache(weights.url)
        if found:
            logger.info("%s is read from the Hugging Face cache: '%s'", weights.name, found)
            return found
        url = (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/") + url[len(_HUB) :]
    try:
        if not path.is_file():
            _refuse_if_offline(url, is_on_hub)
            condition = _CONDITIONS.get(weights.license)
            terms = f"{weights.license}: {condition}" if condition else weights.license
            logger.info("%s has the licence %s (source: %s)", weights.name, terms, weights.source)
        return download(url, path, sha256=weights.sha256)
    except UserError as error:
        variables = "MINDCV_HOME (the cache) or https_proxy"
        variables = f"HF_ENDPOINT (a mirror), HF_HOME (its cache), {variables}" if is_on_hub else variables
        raise UserError(f"{error}; put the file at '{path}' by hand, or set {variables}") from None


def markdown_table() -> str:
    """Return the Markdown table of all published weights for docs/reference/pretrained.md."""
    rows = ["| name | classes | pixels | crop | top-1 | licence | source |", "|---|---|---|---|---|---|---|"]
    for weights in PUBLISHED:
        images = weights.preprocessing
        top_1 = "" if weights.top_1 is None else f"{weights.top_1:.4g}"
        source = f"[{_host(weights.source)}]({weights.source})"
        cells = (weights.name, weights.num_classes or "none", images.image_resize, f"{images.crop_pct:.3g}", top_1)
        rows.append("| " + " | ".join(map(str, (*cells, weights.license, source))) + " |")
    return "\n".join(rows)


def _weights_of(model_name: str) -> list[PretrainedWeights]:
    return [weights for weights in PUBLISHED if split_tag(weights.name)[0] == model_name]


def _refuse_if_offline(url: str, is_on_hub: bool) -> None:
    if is_on_hub and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError(f"'{url}' is in no cache, and HF_HUB_OFFLINE forbids downloading it")


def _in_hub_cache(url: str) -> Optional[Path]:
    """Return the file in the cache of Hugging Face's client, or None.

    The revision that the client last fetched comes first. Otherwise the newest file of any revision is taken.
    """
    owner, repository, _, revision, file_name = urlsplit(url).path.strip("/").split("/")
    folder = _hub_cache() / f"models--{owner}--{repository}"
    reference = folder / "refs" / revision
    if reference.is_file():
        path = folder / "snapshots" / reference.read_text(encoding="utf-8").strip() / file_name
        if path.is_file():
            return path
    return max(folder.glob(f"snapshots/*/{file_name}"), key=lambda path: path.stat().st_mtime, default=None)


def _hub_cache() -> Path:
    """Return the folder of the Hugging Face cache. It reads the same variables, in the same order, as their client."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "hub"


def _host(source: str) -> str:
    """Return a short name of a source: the owner and the repository on GitHub."""
    return "/".join(urlsplit(source).path.split("/")[1:3])
