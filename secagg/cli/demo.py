"""``secagg demo``: a whole session on this machine, every party a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.output import Reporter

if TYPE_CHECKING:
    from secagg.cli.demo_run import DemoOutcome


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register the command."""
    raise NotImplementedError
