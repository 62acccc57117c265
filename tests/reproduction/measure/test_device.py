"""The device of a job: what it says of a GPU that is asked for, or there, and that torch cannot use."""

import logging
from types import SimpleNamespace

import pytest
import torch

from reproduction.errors import ConfigError
from reproduction.measure.inputs import prepare_torch, unusable_gpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU there is nothing to say")


def job(device: str) -> SimpleNamespace:
    return SimpleNamespace(threads=torch.get_num_threads(), config={"training": {"device": device}})


def test_a_gpu_that_is_not_there_is_one_line_with_torchs_reason() -> None:
    reason = unusable_gpu()
    assert reason
    assert "\n" not in reason
    with pytest.raises(ConfigError) as refused:
        prepare_torch(job("cuda"))
    assert str(refused.value) == (
        f"training.device: 'cuda', but torch finds no GPU here ({reason}); allowed without one: cpu, auto"
    )


@pytest.mark.parametrize(("visible", "said"), [("0", 1), ("GPU-8a,GPU-8b", 1), ("", 0), ("-1", 0)])
def test_a_gpu_that_torch_cannot_use_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: object, visible: str, said: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert prepare_torch(job("auto")).type == "cpu"
        assert prepare_torch(job("cpu")).type == "cpu"
    lines = [line for line in caplog.messages if "cannot use the GPU" in line]
    assert len(lines) == said
    assert all(f"({unusable_gpu()})" in line and "training.device: cpu" in line for line in lines)
