"""A tracker as a callback of Lightning."""

import os
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from eigendrift.tracking.tracker import Tracker


class TrackerCallback(Callback):
    """Records the run of a Trainer; its checkpoints hold the tracker's state.

    Attributes:
        tracker: The tracker, once the run has begun.

    Example:
        >>> trainer = Trainer(callbacks=[TrackerCallback("runs/mine", every=100)])  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str], attribute: str | None = None, **options: Any) -> None:
        """Keep the arguments of the tracker.

        Args:
            folder: Where the snapshots go.
            attribute: Name of the LightningModule's attribute that is followed, such as "net"; by default all of it.
            options: Passed on to `Tracker`: every, at, params, record, ...
        """
        self._folder, self._attribute, self._options = folder, attribute, options
        self._state: dict[str, Any] = {}
        self.tracker: Tracker | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the trainer's optimizers."""
        model = pl_module if self._attribute is None else getattr(pl_module, self._attribute)
        self.tracker = Tracker(model, self._folder, **self._options).attach(*trainer.optimizers)
        if self._state:
            self.tracker.load_state_dict(self._state)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the final weights."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the files."""
        self._end()

    def _end(self) -> None:
        if self.tracker is not None:
            self.tracker.detach()

    def state_dict(self) -> dict[str, Any]:
        """What the trainer's checkpoint keeps.

        Returns:
            The tracker's state.
        """
        return self._state if self.tracker is None else self.tracker.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint.

        Args:
            state_dict: What `state_dict` returned.
        """
        self._state = dict(state_dict)
