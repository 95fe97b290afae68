"""``python -m tests.fuzz TARGET --seconds N``: one decoder under atheris, from its seeds.

Prints what atheris prints; exits with 0 if nothing but refusals came in that time. What crashed is left as ``crash-*``
in the directory that ``--keep`` names. ``python -m tests.fuzz`` lists the targets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

PACKAGES = ["secagg", "dp"]


def main() -> None:
    """Fuzz one target; does not return, since atheris ends the process."""
    import atheris

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="?", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long (default: 60)")
    parser.add_argument("--keep", type=Path, default=Path("."), metavar="DIR", help="where crashes go (default: here)")
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=PACKAGES):
        from tests.fuzz.targets import TARGETS
    if arguments.target is None:
        print("\n".join(TARGETS))
        return
    if arguments.target not in TARGETS:
        parser.error(f"no target {arguments.target!r}; without one they are listed")
    target = TARGETS[arguments.target]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        keep = f"-artifact_prefix={arguments.keep}/"
        atheris.Setup(
            [sys.argv[0], f"-max_total_time={arguments.seconds}", "-max_len=65536", keep, "-verbosity=0", corpus],
            target.run,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
