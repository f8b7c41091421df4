"""A trained diffusion in one object: network, schedule and prediction (Chapters 1 and 12)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.diffusion.condition import Condition
from sdlib.diffusion.denoiser import NetworkDenoiser
from sdlib.diffusion.losses import Times, Weighting, diffusion_loss, uniform
from sdlib.diffusion.parameterization import PARAMETERIZATIONS, Parameterization, parameterization
from sdlib.diffusion.schedule import Schedule, schedule


@dataclass(frozen=True, eq=False)
class Diffusion:
    """What belongs together: a network, the schedule it is trained on, and what it predicts.

        diffusion = Diffusion(MLP(), schedule("cosine"), parameterization("v"))
        diffusion.loss(x0).backward()
        x = sample(ddim(diffusion.denoiser(), make_grid(diffusion.schedule, 20), noise))

    Attributes:
        network: called as `network(x, t, cond)`.
        schedule: gives the noise levels, and says what times the network is told.
        predicts: what the network is asked for, around which EDM's preconditioning is one more
            choice: `parameterization("edm", sigma_data=0.5)`.
    """

    network: nn.Module
    schedule: Schedule
    predicts: Parameterization

    def denoiser(self) -> NetworkDenoiser:
        """The estimate of x0 that samplers and guidance ask for."""
        return NetworkDenoiser(self.network, self.predicts)

    def loss(
        self,
        x0: Tensor,
        cond: Condition = None,
        *,
        times: str | Times = uniform,
        weight: str | Weighting | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What training minimizes: `diffusion_loss` of this network; see there."""
        return diffusion_loss(
            self.network,
            x0,
            self.schedule,
            self.predicts,
            weight=weight,
            cond=cond,
            generator=generator,
            times=times,
        )

    def settings(self) -> dict[str, Any]:
        """Schedule and prediction as plain data, as a card keeps them; `from_settings` reads them.

        Raises:
            ValueError: for a schedule or a parameterization that was made by hand, which has no
                name to be found by.
        """
        name = self.predicts.name
        if name != "edm" and PARAMETERIZATIONS.get(name) is not self.predicts:
            raise ValueError(
                f"the parameterization {name!r} was made by hand, and cannot be saved by name."
            )
        if self.schedule.made is None:
            raise ValueError(
                f"the schedule {self.schedule.name!r} was made by hand, and cannot be saved by "
                "name: make it by a function in SCHEDULES."
            )
        name, options = self.schedule.made
        return {
            "schedule": name,
            "schedule_options": dict(options),
            "predicts": self.predicts.name,
            "predicts_options": dict(self.predicts.options),
        }

    @classmethod
    def from_settings(cls, network: nn.Module, settings: dict[str, Any]) -> "Diffusion":
        """A network with the schedule and the prediction that a card names."""
        return cls(
            network,
            schedule(settings["schedule"], **settings.get("schedule_options", {})),
            parameterization(settings["predicts"], **settings.get("predicts_options", {})),
        )
