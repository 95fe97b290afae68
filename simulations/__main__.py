"""``python -m simulations``."""

from __future__ import annotations

from simulations.cli import main

if __name__ == "__main__":
    main()
