"""``fastgru info``: what runs here, and why."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

import numpy as np

import fastgru
from fastgru import _native
from fastgru.cli.options import print_json


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser("info", help="what runs here, and why")
    command.add_argument("--json", action="store_true", help="as one line of JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the facts."""
    facts = {
        "version": fastgru.__version__,
        "isa": _native.ISA,
        "reason": _native.REASON,
        "available": _native.available(),
        "compiler": _native.kernels.__compiler__,
        "threads": fastgru.get_num_threads(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
    if arguments.json:
        print_json(**facts)
        return
    print(f"fastgru {facts['version']}")
    print(f"instruction set: {facts['isa']} ({facts['reason']})")
    print(f"threads: {facts['threads']} of {facts['processors']} processors")
    print(f"kernels built with: {facts['compiler']}")
    print(f"Python {facts['python']}, NumPy {facts['numpy']}, {facts['platform']}")
