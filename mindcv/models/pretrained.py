"""Published weights and what belongs to them."""

from __future__ import annotations

from mindcv.utils.errors import UserError

__all__ = ["require_no_pretrained"]


def require_no_pretrained(model_name: str, pretrained: bool) -> None:
    """Raise a `UserError` when published weights are asked for: this version has no table of them yet."""
    if pretrained:
        raise UserError(
            f"pretrained=True: this version knows no published weights of '{model_name}' to download; "
            "convert a file you have with mindcv.convert.to_mindcv and give it as checkpoint_path"
        )
