"""Generate the stubs in ``secagg/v1`` from the protos: ``make protos``, or with a directory to write elsewhere."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
# Named by its place: the environment's scripts need not be on PATH when its python is called by name.
MYPY_GRPC = Path(sysconfig.get_path("scripts")) / "protoc-gen-mypy_grpc"


def generate(target: Path) -> None:
    """Write Python stubs and their types below ``target``, imports reading ``from secagg.v1 import``."""
    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{HERE}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--plugin=protoc-gen-mypy_grpc={MYPY_GRPC}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out={target}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent)
