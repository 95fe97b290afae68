"""Worker processes of whoever simulates many sessions."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def follow_the_parent() -> None:
    """In a worker: leave interrupts to the parent, and end when it ends, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def cores() -> int:
    """How many processes can run at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A worker holds both ends of the pool's pipe: it would wait for work for ever.
        parent.join()
        os._exit(1)
