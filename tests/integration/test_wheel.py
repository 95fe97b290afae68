"""The built wheel, installed beside nothing else: its packages are ours, and the demo finds its adapters."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import importlib.metadata, pathlib, secagg
owners = importlib.metadata.packages_distributions()
assert all(owners[name] == ["secagg-lora"] for name in ("secagg", "dp", "verifier", "simulations")), owners
for name in ("example_adapters", "example_adapters_independent"):
    adapters = pathlib.Path(secagg.__file__).parent / name
    assert sorted(path.name for path in adapters.iterdir() if path.is_dir()) == [str(k) for k in range(1, 9)]
assert (pathlib.Path(secagg.__file__).parent / "py.typed").is_file()
scripts = {each.name: each.value for each in importlib.metadata.entry_points(group="console_scripts")}
assert {"secagg": "secagg.cli.main:main", "secagg-verify": "verifier.cli:main"}.items() <= scripts.items(), scripts
assert not list(pathlib.Path(secagg.__file__).parent.parent.glob("tests"))
"""


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=200)


def test_the_built_wheel_owns_its_packages_and_carries_the_example_adapters(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("secagg_lora-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    run(python, "-I", "-c", SCRIPT)
