"""``python -m simulations``."""

from __future__ import annotations

from simulations.commands.cli import main

if __name__ == "__main__":
    main()
