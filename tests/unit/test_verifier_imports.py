"""The verifier shares the record's formats and the arithmetic with the services, and nothing else."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import verifier

FORBIDDEN = [
    "grpc",
    "google.protobuf",
    "asyncio",
    "sqlite3",
    "secagg.protocol",
    "secagg.runtime",
    "secagg.store",
    "secagg.identity",
    "secagg.services",
    "secagg.wire",
    "secagg.cli",
    "secagg.client",
    "secagg.remote",
    "secagg.remote_operator",
    "secagg.v1",
    "simulations",
    "http.client",
    "urllib.request",
]
SCRIPT = """
import importlib, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print("\\n".join(sorted(sys.modules)))
"""


def modules() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages(verifier.__path__, "verifier.")]
    assert len(found) > 15
    return ["verifier", *found]


def test_nothing_of_the_services_is_loaded_with_the_verifier() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, ",".join(modules())], check=True, capture_output=True, text=True
    )
    loaded = run.stdout.split()
    assert "verifier.cli" in loaded
    assert "secagg.transcript.entries" in loaded
    forbidden = [module for module in loaded if any(f"{module}.".startswith(f"{name}.") for name in FORBIDDEN)]
    assert forbidden == []


def test_the_package_runs_as_a_command() -> None:
    run = subprocess.run([sys.executable, "-m", "verifier", "list-checks"], check=False, capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stdout.startswith("LOG-1 ")
