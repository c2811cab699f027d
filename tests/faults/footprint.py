"""What a process holds: memory, descriptors, threads."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Footprint:
    """What the process holds, without what it has let go of and its allocator keeps."""

    memory_mib: float
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        if (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc's
            give_back(0)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 1024**2
        return cls(round(memory, 1), len(os.listdir("/proc/self/fd")), threading.active_count())
