"""Chapter 10: the setting of the C library that keeps freed memory.

It stands by itself: every full run makes it, and needs nothing else of the chapter.
"""

import ctypes


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of giving it back to the system.

    glibc gives each large tensor back when it is freed, so every step of training pays
    for new pages. Returns whether the settings were made: elsewhere nothing happens.
    Source: mallopt(3). Taught in chapter 10.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: macOS, musl, Windows
        return False
    trim_threshold, mmap_threshold, largest, once_largest = -1, -3, 2**31 - 1, 2**25
    if not mallopt(mmap_threshold, largest):
        mallopt(mmap_threshold, once_largest)  # an older glibc refuses more
    return bool(mallopt(trim_threshold, largest))
