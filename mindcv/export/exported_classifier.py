"""An exported classifier in the place of a network."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv.export.exported_file import ExportedFile
from mindcv.export.metadata import FEATURE_MAPS, LOGITS, PROBABILITIES
from mindcv.utils.errors import UserError
from mindcv.utils.logger import counted

__all__ = ["ExportedClassifier"]


class ExportedClassifier(nn.Cell):
    """A classifier in an exported file, as a network that maps images to logits. It has no parameters.

    It takes prepared images, float32 [N, C, H, W]. A file that prepares the images itself takes float32 [N, 3, H, W]
    with the values of pixels, whole numbers from 0 to 255. Outputs that are probabilities become their logarithms,
    whose softmax is the probabilities.

    Args:
        exported: the opened file.

    Raises:
        UserError: the file returns features instead of logits or probabilities, or the number of its class names is
            not that of its outputs. A file that does not tell the number of its outputs is checked at the first call.
    """

    def __init__(self, exported: ExportedFile):
        super().__init__()
        kind = exported.metadata.output
        if kind not in (LOGITS, PROBABILITIES):
            returned = "feature maps" if kind == FEATURE_MAPS else "features"
            raise UserError(
                f"'{exported.path}' returns {returned}, and a classifier is expected: export the model with its "
                "classifier, without features_only"
            )
        self._exported = exported
        if exported.num_outputs is not None:
            self._check_shape((1, exported.num_outputs))

    def __call__(self, images: ms.Tensor) -> ms.Tensor:
        """Return the logits [N, classes], float32. It replaces `nn.Cell.__call__`, so nothing is compiled."""
        array = images.asnumpy()
        if self._exported.metadata.takes_pixels:
            array = np.ascontiguousarray(array.transpose(0, 2, 3, 1).astype(np.uint8))
        outputs = self._exported(array)[0]
        self._check_shape(outputs.shape)
        if self._exported.metadata.output == PROBABILITIES:
            outputs = np.log(np.maximum(outputs, np.finfo(np.float32).tiny))
        return ms.Tensor(outputs.astype(np.float32))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Check the shape of outputs: one for each class.

        Raises:
            UserError: they are no rows, or their number is not that of the class names.
        """
        path, num_names = self._exported.path, len(self._exported.metadata.class_names)
        if len(shape) != 2:
            raise UserError(
                f"'{path}' returned an array {list(shape)}, and logits or probabilities, [N, classes], are expected"
            )
        if num_names not in (0, shape[1]):
            raise UserError(
                f"'{path}' has {counted(num_names, 'class name')} for {counted(shape[1], 'output')}, and one name for "
                "each output is expected: its metadata is damaged, so export the network again"
            )
