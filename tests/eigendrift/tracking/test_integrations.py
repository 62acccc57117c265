"""The adapters in the frameworks themselves, on tiny models."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_loops import data, plain

from eigendrift.tracking.trajectory import Trajectory

# What the frameworks themselves warn of.
pytestmark = [pytest.mark.filterwarnings("default")]


def replayed(make: Any, gradients: Any) -> None:
    """Check that SGD at a rate of 0.1 from each point gives the recorded update."""
    found: Trajectory = make
    count = int(found.has("updates").sum())
    assert count >= 2
    np.testing.assert_allclose(found.updates[:count], -0.1 * gradients[:count], rtol=1e-4, atol=1e-7)


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from eigendrift.integrations.lightning import TrackerCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = plain()

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=16)

    def trainer(steps: int, callback: TrackerCallback) -> Any:
        return lightning.Trainer(
            max_steps=steps,
            callbacks=[callback],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback = TrackerCallback(tmp_path / "run", attribute="net", every=2, quiet=True)
        first = trainer(6, callback)
        first.fit(Module(), loader)
        first.save_checkpoint(tmp_path / "last.ckpt")
        assert Trajectory(tmp_path / "run").steps.tolist() == [0, 2, 4, 6]
        found = Trajectory(tmp_path / "run")
        assert list(found.shapes) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        # Lightning always steps with a closure; the gradient is that of its first evaluation.
        replayed(found, found.gradients)
        callback = TrackerCallback(tmp_path / "run", attribute="net", every=2, quiet=True)
        trainer(10, callback).fit(Module(), loader, ckpt_path=tmp_path / "last.ckpt")
    found = Trajectory(tmp_path / "run")
    assert found.steps.tolist() == [0, 2, 4, 6, 8, 10]
    assert found.has("gradients").tolist() == [True] * 5 + [False]


def test_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from eigendrift.integrations.transformers import TrackerCallback

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    rows = [
        {"input_ids": torch.randint(20, (5,)), "attention_mask": torch.ones(5, dtype=torch.long), "labels": i % 2}
        for i in range(16)
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        use_cpu=True,
        report_to=[],
        save_strategy="steps",
        save_steps=2,
        disable_tqdm=True,
        logging_strategy="no",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback = TrackerCallback(tmp_path / "run", every=1, quiet=True)
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[callback]).train()
        found = Trajectory(tmp_path / "run")
        assert found.steps.tolist() == [0, 1, 2, 3, 4]
        assert found.has("gradients").tolist() == [True] * 4 + [False]
        assert list(found.shapes) == [name for name, _ in model.named_parameters()]
        np.testing.assert_allclose(found.weights[1], found.weights[0] + found.updates[0], atol=1e-6)
        whole = np.array(found.weights)
        callback = TrackerCallback(tmp_path / "run", every=1, quiet=True)
        again = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[callback])
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    found = Trajectory(tmp_path / "run")
    assert found.steps.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found.weights[:3], whole[:3])


def test_skorch(tmp_path: Path) -> None:
    skorch = pytest.importorskip("skorch")
    from eigendrift.integrations.skorch import TrackerCallback

    inputs, targets = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = skorch.NeuralNetClassifier(
            plain(),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            lr=0.1,
            batch_size=16,
            max_epochs=2,
            train_split=None,
            verbose=0,
            callbacks=[("tracker", TrackerCallback(tmp_path / "run", every=3, quiet=True))],
        )
        net.fit(inputs.numpy(), targets.numpy())
        found = Trajectory(tmp_path / "run")
        assert found.steps.tolist() == [0, 3, 6, 8]
        replayed(found, found.gradients)
        net.partial_fit(inputs.numpy(), targets.numpy())
    found = Trajectory(tmp_path / "run")
    assert found.steps.tolist() == [0, 3, 6, 9, 12, 15, 16]
