"""A tracker as a callback of the Trainer of Transformers."""

import os
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from eigendrift.tracking.tracker import Tracker


class TrackerCallback(TrainerCallback):
    """Records the run of a Trainer; one that is resumed from a checkpoint goes on at its step.

    Attributes:
        tracker: The tracker, once the run has begun.

    Example:
        >>> trainer = Trainer(model, args, callbacks=[TrackerCallback("runs/mine", every=100)])  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Keep the arguments of the tracker.

        Args:
            folder: Where the snapshots go.
            options: Passed on to `Tracker`: every, at, params, record, ...
        """
        self._folder, self._options = folder, options
        self.tracker: Tracker | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **of_trainer: Any
    ) -> None:
        """Attach to the trainer's optimizer."""
        self.tracker = Tracker(of_trainer["model"], self._folder, **self._options).attach(of_trainer["optimizer"])
        if state.global_step:
            self.tracker.step = state.global_step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **of_trainer: Any
    ) -> None:
        """Record the final weights."""
        if self.tracker is not None:
            self.tracker.detach()
