"""A run as one HTML page that needs no other file and no network."""

from mindcv.report.examples import Example, ExampleCollector
from mindcv.report.markup import shown_size
from mindcv.report.page import report_page
from mindcv.report.run_files import RunFiles, read_run
from mindcv.report.validation import Validated

__all__ = ["Example", "ExampleCollector", "RunFiles", "Validated", "read_run", "report_page", "shown_size"]
