"""A tracker as a callback of skorch."""

import os
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from eigendrift.tracking.tracker import Tracker


class TrackerCallback(Callback):  # type: ignore[misc]
    """Records the run of a net; a further `partial_fit` goes on where the last one ended.

    Attributes:
        tracker: The tracker, once the run has begun.

    Example:
        >>> net = NeuralNetClassifier(Net, callbacks=[TrackerCallback("runs/mine", every=100)])  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Keep the arguments of the tracker.

        Args:
            folder: Where the snapshots go.
            options: Passed on to `Tracker`: every, at, params, record, ...
        """
        self._folder, self._options = folder, options
        self.tracker: Tracker | None = None

    def initialize(self) -> "TrackerCallback":
        """Forget the run of a net that is made anew.

        Returns:
            This callback.
        """
        self.tracker = None
        return self

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **of_net: Any) -> None:
        """Attach to the net's optimizer."""
        before = self.tracker
        self.tracker = Tracker(net.module_, self._folder, **self._options).attach(net.optimizer_)
        if before is not None:
            self.tracker.step = before.step

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **of_net: Any) -> None:
        """Record the final weights."""
        if self.tracker is not None:
            self.tracker.detach()
