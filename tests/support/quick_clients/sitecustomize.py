"""Waits pass a hundred times as fast where this folder is on the path: for clients in containers of the fakes."""

import time

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(seconds / 100)
