"""Repeated work as a CUDA graph.

A training step is some thirty operations of a few microseconds each on a GPU, and the host takes as long to launch each
of them. A graph of all of them is launched at once (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from collections.abc import Callable

import torch

from reproduction.progress import log

# Calls before the capture: libraries and optimizers allocate their own memory at the first calls.
WARM_UP = 3


class GraphedCallable:
    """`work` as a callable; on a GPU it is captured as a CUDA graph at one of its calls, and replayed from then on.

    The work must read and write the same memory every time, decide nothing on the host and wait for nothing. Every call
    takes effect, the calls before the capture included.
    """

    def __init__(self, work: Callable[[], object], device: torch.device, allowed: bool = True) -> None:
        """`allowed`: whether the work may be captured as a whole; if not, it is launched operation by operation."""
        self.work, self.calls = work, 0
        self.on_gpu = device.type == "cuda" and allowed
        self.graph: torch.cuda.CUDAGraph | None = None
        # Warm-up and capture use one stream, since libraries keep their state for each stream.
        self.stream = torch.cuda.Stream(device) if self.on_gpu else None

    def __call__(self) -> None:
        """Do the work once."""
        if self.stream is None:
            self.work()
        elif self.graph is not None:
            self.graph.replay()
        elif self.calls < WARM_UP:
            self.calls += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.work()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            self._capture()
            self()

    def _capture(self) -> None:
        """Capture the work, which does not execute it."""
        captured = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(captured, stream=self.stream):
                self.work()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            log.warning("not captured as a CUDA graph, launched operation by operation: %s", reason)
            self.stream = None
        else:
            self.graph = captured
