"""Training shared by several processes, which torchrun starts, one a GPU or core.

Here live a worker's place among the others, its share of each batch, and what they
average. The loop itself knows nothing of workers: they stand around it.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """This process is number `rank` of `count`; it takes every count-th image.

    With `sync_norm` batch normalisation takes mean and deviation over the images of
    all workers, as one process would; without, over each worker's own.
    """

    rank: int = 0
    count: int = 1
    sync_norm: bool = False

    def wrap(self, model: nn.Module) -> nn.Module:
        """Let the workers average their gradients in each step.

        Returns what the loop calls in place of `model`; the weights stay the model's.
        """
        if self.count == 1:
            return model
        for name, layer in list(model.named_modules()):
            if self.sync_norm and isinstance(layer, nn.BatchNorm2d):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, share_statistics(layer))
        return DistributedDataParallel(model)

    def agree(self, model: nn.Module) -> None:
        """Give all workers the running statistics of the first one."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def share(
        self, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this worker's images and labels of each batch."""
        for x, y in batches:
            yield x[self.rank :: self.count], y[self.rank :: self.count]

    def check_batches(self, images: int, batch_size: int) -> None:
        """Raise ValueError unless each batch of an epoch divides among the workers.

        Then each worker's gradient counts as much as another's.
        """
        for size in (min(batch_size, images), images % batch_size):
            if size % self.count:
                raise ValueError(
                    f"a batch of {size} images does not divide among {self.count} "
                    f"workers: {images:,} images in batches of {batch_size} need "
                    "another number of workers, or another --batch-size"
                )

    def mean(self, *numbers: float) -> list[float]:
        """Return the means of `numbers` over all workers, the same for each of them."""
        if self.count == 1:
            return list(numbers)
        device = torch.accelerator.current_accelerator()
        if device is None or dist.get_backend() == "gloo":
            device = "cpu"
        total = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return (total / self.count).tolist()


ALONE = Workers()


def join(device: torch.device, sync_norm: bool = False) -> Workers:
    """Join the workers that torchrun has started; alone without torchrun.

    Raises RuntimeError if the others cannot be reached, and ValueError if there are
    more workers than accelerators on this machine.
    """
    if not dist.is_torchelastic_launched():
        return ALONE
    if device.type != "cpu":
        place, found = int(os.environ["LOCAL_RANK"]), torch.accelerator.device_count()
        if place >= found:
            raise ValueError(
                f"worker {place} finds no {device.type} of its own: start at most "
                f"{found} on this machine, or use --device cpu"
            )
        torch.accelerator.set_device_index(place)
    dist.init_process_group(dist.get_default_backend_for_device(device))
    return Workers(dist.get_rank(), dist.get_world_size(), sync_norm)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the images of all workers, on any device.

    PyTorch's SyncBatchNorm does the same on GPUs only.
    Input and output: float (N, C, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.new_full((x.shape[1],), x.numel() / x.shape[1])
        variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        own = torch.stack([mean, variance, count])  # (3, C)
        means, variances, counts = gather(own).unbind(dim=1)  # each (workers, C)
        share = counts / counts.sum(dim=0)
        mean = (share * means).sum(dim=0)
        variance = (share * (variances + (means - mean) ** 2)).sum(dim=0)
        with torch.no_grad():
            total = counts.sum(dim=0)
            self.running_mean.lerp_(mean, self.momentum)
            unbiased = variance * total / (total - 1)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def share_statistics(layer: nn.BatchNorm2d) -> nn.Module:
    """Return `layer` with the same parameters, normalising over all workers' images."""
    if layer.weight.device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    shared = SharedBatchNorm(layer.num_features, layer.eps, layer.momentum)
    shared.to(layer.weight)
    shared.load_state_dict(layer.state_dict())
    return shared


class _Gather(torch.autograd.Function):
    """Stack the workers' tensors; backward, add what each of them sends back."""

    @staticmethod
    def forward(context, own: Tensor) -> Tensor:
        pieces = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, own)
        return torch.stack(pieces)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def gather(own: Tensor) -> Tensor:
    """Return the tensors (…) of all workers, stacked (workers, …), with gradients."""
    return _Gather.apply(own)
