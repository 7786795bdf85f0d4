"""How a network is trained: the numbers that shape its result, with their only defaults."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Hyperparameters(BaseModel):
    """What shapes a training beside its data and its network.

    Attributes
    ----------
    epochs : int
    batch_size : int
        Images in a step, over all ranks.
    epoch_min : int
        Images in an epoch at least: a small set is gone through several times, turned otherwise each time.
    learning_rate : float
        The highest; it rises to it and falls along a cosine.
    augment : bool
        Whether images are turned and mirrored by the symmetries of the camera.
    symmetric : bool
        Whether the finished network is the mean over those symmetries (`apbatch.dl.networks.models.symmetrised`): most
        score better, and all take as many times as long. On the axial grid only: others are not mapped onto themselves.
    patience : int, optional
        Stop after so many epochs without a lower validation loss.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=64, ge=1)
    epoch_min: int = Field(default=6000, ge=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    augment: bool = True
    symmetric: bool = False
    patience: int | None = Field(default=None, ge=1)
