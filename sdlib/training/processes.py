"""The processes that train one network together, as `accelerate launch` starts them."""

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, reduce
from torch import Tensor, nn

from sdlib.training.batches import Batches, digest, share


class Processes:
    """One process or several; with one, nothing here costs a step any time.

    Gradients are averaged here and not by a wrapper around the network, so that a loss is handed
    the network itself: its attributes, its parts (an `nn.ModuleDict`), and parts without gradients
    are no special case.

    Attributes:
        count, rank: how many there are, and which this is, from 0.
        main: whether this is the one that writes files and shows a bar.
        mixed_precision: "no", "bf16" or "fp16", as `accelerate launch` was told.
    """

    def __init__(self):
        self.accelerator = Accelerator()
        self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.main = self.accelerator.is_main_process
        self.mixed_precision = self.accelerator.mixed_precision

    @torch.no_grad()
    def place(self, network: nn.Module) -> None:
        """Move a network to the device of its process, with the values of the main one.

        One process trains a network where it stands.
        """
        if self.count > 1:
            network.to(self.accelerator.device)
            for tensor in [*network.parameters(), *network.buffers()]:
                broadcast(tensor)

    def draw_apart(self, generator: torch.Generator) -> torch.Generator:
        """A generator for what each process draws for itself: times, noise, dropout.

        One process goes on with `generator`. Several use it for what they have in common, the
        batches, and each seeds a generator of its own, and torch's global one, by a draw from it.
        """
        if self.count == 1:
            return generator
        seed = int(torch.randint(2**60, (), generator=generator, device="cpu")) + self.rank
        torch.manual_seed(seed + self.count)  # another stream: dropout is not to repeat the noise
        return torch.Generator().manual_seed(seed)

    def mean(self, value: Tensor) -> float:
        """The mean of a number over the processes; of NaN and anything, NaN."""
        if self.count == 1:
            return value.item()
        return reduce(value.detach().float(), "mean").item()

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Set each gradient to its mean over the processes; one that is nowhere stays None."""
        if self.count == 1:
            return
        parameters = list(parameters)
        present = torch.tensor([float(p.grad is not None) for p in parameters])
        rows = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters]
        flat = reduce(torch.cat([*rows, present.to(rows[0].device)]), "mean")
        *means, present = flat.split([*(p.numel() for p in parameters), len(parameters)])
        for parameter, mean, found in zip(parameters, means, present.tolist(), strict=True):
            # in the parameter's own order in memory, which a fused optimizer takes for granted
            mean = torch.empty_like(parameter).copy_(mean.view_as(parameter))
            parameter.grad = mean if found else None

    def gather(self, value: Any) -> list:
        """What each process has, in order of rank, for all of them."""
        return [value] if self.count == 1 else gather_object([value])

    def share(self, batch: Any) -> Any:
        """What this process takes of a batch that all of them drew."""
        return batch if self.count == 1 else share(batch, self.rank, self.count)

    def check_same(self, done: int, batches: Batches) -> None:
        """Raise a ValueError unless all go on from the same step with the same batch."""
        if self.count == 1:
            return
        steps, drawn = zip(*self.gather((done, digest(batches.peek()))), strict=True)
        if len(set(steps)) > 1:
            raise ValueError(
                "the processes do not see the same checkpoint; put it where all of them can read."
            )
        if len(set(drawn)) > 1:
            raise ValueError(
                "the processes do not draw the same batches; seed the generator alike in all of "
                "them, and draw batches from it."
            )

    def wait(self) -> None:
        """Until all have come this far."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()
