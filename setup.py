"""Packaging of mindcv. MindSpore fixes most of it: its wheels are for Python 3.9 to 3.12 and NumPy 1."""

import os
import re
import runpy
import shlex
import subprocess
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
PLOTS = ["matplotlib>=3.5"]
DEMO = ["scikit-learn>=1.0", *PLOTS]


class BuildKernels(build_ext):
    """Compiles the CPU kernels. Where that cannot be done the package is installed without them."""

    def build_extension(self, ext: Extension) -> None:
        build = runpy.run_path(str(HERE / "mindcv" / "kernels" / "build.py"))["build"]
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        try:
            build(compiler, Path(self.get_ext_fullpath(ext.name)))
        except (OSError, subprocess.CalledProcessError) as error:
            self.warn(f"the CPU kernels are left out: {getattr(error, 'stderr', '') or error}")


setup(
    name="mindcv",
    version=re.search(r'__version__ = "(.+)"', (HERE / "mindcv" / "__init__.py").read_text())[1],
    description="ConvNeXt and ConvNeXt V2 for MindSpore, in the style of MindCV",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.13",
    packages=find_packages(include=["mindcv", "mindcv.*"]),
    package_data={"mindcv.data": ["*.tsv"], "mindcv.kernels": ["csrc/*"]},
    ext_modules=[Extension("mindcv.kernels._kernels", sources=[], optional=True)],
    cmdclass={"build_ext": BuildKernels},
    install_requires=[
        "mindspore>=2.7",
        "numpy>=1.22,<2",  # MindSpore's wheels fail at the first tensor operation with NumPy 2
        "pyyaml>=5.4",
        "pillow>=10.1",
        "tqdm>=4.60",
    ],
    extras_require={
        "plots": PLOTS,
        "demo": DEMO,
        "test": ["pytest>=7", "setuptools", *DEMO],
        "dev": ["pytest>=7", "setuptools", "ruff>=0.6", *DEMO],
    },
)
