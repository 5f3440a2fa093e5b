"""What asks a command to stop: Ctrl-C, and SIGTERM from whoever runs it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call a function with the name of each signal that asks to stop; then all is as before."""

    def handle(number: int, _: object) -> None:
        stop(signal.Signals(number).name)

    previous = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
