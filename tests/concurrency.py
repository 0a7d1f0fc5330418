"""Runs the same function in several Python threads."""

from __future__ import annotations

import threading


def in_threads(count, work, *, numbered=False):
    """Run `work` in `count` threads, with the thread's number if `numbered`, and wait for all."""
    threads = [threading.Thread(target=work, args=(number,) if numbered else ()) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
