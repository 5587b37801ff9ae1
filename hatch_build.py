"""Builds what is in C beside what mypyc compiles; see docs/how-to/compile-it.md."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

FLAGS = {"win32": ["/O2"]}.get(sys.platform, ["-O2", "-Wall", "-Wextra"])


class NativeHook(BuildHookInterface[Any]):
    """Extension modules, put beside their sources in the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile them."""
        self._work = work = Path(mkdtemp(prefix="joinleaf-"))
        sources = sorted((Path(self.root) / "src" / "joinleaf").glob("*.c"))
        modules = [
            Extension(source.stem, [str(source)], extra_compile_args=FLAGS) for source in sources
        ]
        command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(work), str(work / "temp")
        command.ensure_finalized()
        command.run()
        for source in sources:
            name = source.stem + sysconfig.get_config_var("EXT_SUFFIX")
            build_data["force_include"][str(work / name)] = f"joinleaf/{name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel has them: clean up."""
        shutil.rmtree(self._work)
