"""Work that is the same every time, launched as one: a CUDA graph.

A training step is some thirty operations of a few microseconds each on a GPU, and the host takes as long to launch each
of them. A graph of all of them is launched at once (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from collections.abc import Callable

import torch

from reproduction.progress import log

# Calls before the recording: libraries and optimizers make their own memory at the first ones.
WARM_UP = 3


class Captured:
    """`work` as a function that does the same; on a GPU it is recorded at one of its calls and replayed from then on.

    It must read and write the same memory every time, decide nothing on the host and wait for nothing. All calls take
    effect, those before the recording too: none is for warming up alone.
    """

    def __init__(self, work: Callable[[], object], device: torch.device, allowed: bool = True) -> None:
        """`allowed`: whether all of the work may be recorded; if not, it is launched piece by piece."""
        self.work, self.calls = work, 0
        self.on_gpu = device.type == "cuda" and allowed
        self.graph: torch.cuda.CUDAGraph | None = None
        # Recording and warming up on one stream: libraries keep what they set up for each.
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
            self._record()
            self()

    def _record(self) -> None:
        """What is recorded is not done."""
        recorded = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(recorded, stream=self.stream):
                self.work()
        except RuntimeError as error:
            log.warning("not recorded, launched piece by piece: %s", str(error).partition("\n")[0])
            self.stream = None
        else:
            self.graph = recorded
