"""Where a network computes; no back-end is imported here, a stand-in tells what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from apbatch.dl.training import device, launch
from apbatch.dl.training.spec import TrainSpec, identity_of
from apbatch.errors import MissingSoftwareError


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two graphics processors; the list gets the number of the rank that takes one."""
    asked: list[int] = []

    def take(local: int) -> str:
        asked.append(local)
        return f"GPU {local % 2}"

    monkeypatch.setattr(device, "_tensorflow_gpu", take)
    return asked


def test_the_processor_is_taken_where_it_is_named(found: list[int]) -> None:
    assert device.take("cpu", "tensorflow") == "cpu"
    assert found == []


@pytest.mark.parametrize("variable", ["HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"])
def test_ranks_take_one_each(variable: str, found: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    taken = []
    for rank in range(3):
        monkeypatch.setenv(variable, str(rank))
        taken.append(device.take("auto", "tensorflow"))
    assert taken == ["GPU 0", "GPU 1", "GPU 0"]


def test_without_one_auto_takes_the_processor_and_gpu_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_torch_gpu", lambda: None)
    assert device.take("auto", "torch") == "cpu"
    with pytest.raises(MissingSoftwareError, match="torch finds no graphics processor") as caught:
        device.take("gpu", "torch")
    assert "nvidia-smi" in str(caught.value.remedy)


def test_ranks_see_graphics_processors_unless_the_processor_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def seen(where: str) -> str | None:
        spec = TrainSpec.model_validate({"data": tmp_path, "output": tmp_path, "device": where})
        return launch._environment(spec, 1).get("CUDA_VISIBLE_DEVICES")

    assert seen("cpu") == "-1"
    assert seen("auto") is None
    assert seen("gpu") is None


def test_a_training_may_go_on_elsewhere(tmp_path: Path) -> None:
    specs = [TrainSpec.model_validate({"data": tmp_path, "output": tmp_path, "device": at}) for at in ("cpu", "gpu")]
    assert identity_of(specs[0], {"files": {}}) == identity_of(specs[1], {"files": {}})
