"""Builds the short way in C beside what mypyc compiles; see docs/how-to/compile-it.md."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

FLAGS = {"win32": ["/O2"]}.get(sys.platform, ["-O2", "-Wall", "-Wextra"])


class TrainsHook(BuildHookInterface[Any]):
    """One extension module, put beside its source in the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it."""
        work = Path(self.directory) / "trains"
        shutil.rmtree(work, ignore_errors=True)
        source = Path(self.root) / "src" / "joinleaf" / "_trains.c"
        extension = Extension("_trains", [str(source)], extra_compile_args=FLAGS)
        command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(work), str(work / "temp")
        command.ensure_finalized()
        command.run()
        name = "_trains" + sysconfig.get_config_var("EXT_SUFFIX")
        build_data["force_include"][str(work / name)] = f"joinleaf/{name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
