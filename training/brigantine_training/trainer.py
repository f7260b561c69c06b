"""The two networks of a GAN and everything that one step of training changes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .config import GanConfig
from .data import Dataset, Sampler
from .ema import Ema
from .errors import DivergedError
from .family import Figures
from .losses import build_loss
from .networks import build_discriminator, build_generator
from .runtime import Runtime
from .schedule import Rates, rates_at
from .torchvision_guard import transforms


class Losses(NamedTuple):
    """Means over the steps since they were last asked for."""

    discriminator: float
    generator: float
    penalty: float


class GanTrainer:
    """Takes training steps. Knows no clock, no budget and no file; its state is all that a resumed run needs."""

    def __init__(self, config: GanConfig, dataset: Dataset, runtime: Runtime) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        self._rates = rates_at(config, 0.0)
        self._runtime = runtime
        self._classes = len(dataset.labels)
        self._images = dataset.train_images.to(runtime.device)  # [N, C, H, W] uint8
        self._labels = dataset.train_labels.to(runtime.device)  # [N] int64
        self._normalise = transforms.Compose([
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(mean=[0.5] * dataset.image_shape[0], std=[0.5] * dataset.image_shape[0]),
        ])  # fmt: skip
        place = {"device": runtime.device, "memory_format": torch.channels_last}
        self.generator = build_generator(config, self._classes, dataset.image_shape).to(**place)
        self.discriminator = build_discriminator(config, self._classes, dataset.image_shape).to(**place)
        self.ema = Ema(self.generator, config.ema_decay)
        betas = (config.adam_beta1, config.adam_beta2_start)
        self._optimizers = {
            "generator": torch.optim.Adam(
                self.generator.parameters(), config.learning_rate, betas, fused=True
            ),
            "discriminator": torch.optim.Adam(
                self.discriminator.parameters(), config.learning_rate, betas, fused=True
            ),
        }
        self._loss = build_loss(config.loss)
        self._sampler = Sampler(len(self._images), config.batch_images, config.seed)
        self._random = torch.Generator(runtime.device).manual_seed(config.seed)
        self._sums = torch.zeros(3, device=runtime.device)
        self._summed_steps = 0
        self._images_shown = 0
        self.steps = 0
        self.images_seen = 0

    def step(self, progress: float) -> None:
        """One update of the discriminator, then one of the generator, then of the average."""
        self._rates = rates_at(self._config, progress)
        self._apply(self._rates)
        judged, penalty = self._step_discriminator(self._rates.gamma)
        drawn = self._step_generator()
        self.ema.update(self.generator)
        self._sums += torch.stack([judged, drawn, penalty])
        self._summed_steps += 1
        self.steps += 1
        self.images_seen += self._config.batch_images

    def _apply(self, rates: Rates) -> None:
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rates.learning_rate
                group["betas"] = (group["betas"][0], rates.beta2)

    def _step_discriminator(self, gamma: float) -> tuple[Tensor, Tensor]:
        real, label = self._next_batch()
        with torch.no_grad():
            fake = self._draw(label)
        loss = self._loss.discriminator(self._judge, real, fake, label, gamma)
        self._update("discriminator", loss.total)
        return loss.total.detach(), loss.penalty

    def _step_generator(self) -> Tensor:
        real, label = self._next_batch()
        self.discriminator.requires_grad_(False)
        loss = self._loss.generator(self._judge, real, self._draw(label), label)
        self._update("generator", loss)
        self.discriminator.requires_grad_(True)
        return loss.detach()

    def _update(self, which: str, loss: Tensor) -> None:
        self._optimizers[which].zero_grad()
        loss.backward()
        self._optimizers[which].step()

    def _next_batch(self) -> tuple[Tensor, Tensor]:
        """Real images [N, C, H, W] f32 in -1..1, and their labels [N]."""
        indices = self._sampler.next().to(self._images.device)
        return self._normalise(self._images[indices]), self._labels[indices]

    def _draw(self, label: Tensor) -> Tensor:
        """Fresh fakes under `label` [N]: [N, C, H, W] f32 in -1..1."""
        z = torch.randn(len(label), self.generator.z_dim, generator=self._random, device=label.device)
        with self._runtime.autocast():
            return self.generator(z, label).float()

    def _judge(self, images: Tensor, label: Tensor) -> Tensor:
        """Logits [N] f32; only the inside of the network is in the short number format."""
        with self._runtime.autocast():
            return self.discriminator(images, label).float()

    @torch.no_grad()
    def draw_samples(self, per_class: int = 10) -> Tensor:
        """The averaged generator's images, one class after the other, of the same noise each time it is asked.

        Gives [classes * per_class, C, H, W] f32 in 0..1 on the CPU.
        """
        z = torch.randn(per_class, self.generator.z_dim, generator=torch.Generator().manual_seed(0))
        z = z.repeat(self._classes, 1).to(self._images.device)  # [classes * per_class, z_dim]
        label = torch.arange(self._classes, device=z.device).repeat_interleave(per_class)
        return (self.ema.generator(z, label).float().cpu() + 1) / 2

    def take_figures(self, seconds: float) -> Figures:
        """Losses and rates since the last call, which was `seconds` ago.

        Raises:
            DivergedError: a loss is not finite.
        """
        losses = self.take_losses()
        speed = (self.images_seen - self._images_shown) / seconds
        self._images_shown = self.images_seen
        values = {
            "images_seen": self.images_seen,
            "loss_discriminator": losses.discriminator,
            "loss_generator": losses.generator,
            "penalty": losses.penalty,
            "learning_rate": self._rates.learning_rate,
            "gamma": self._rates.gamma,
            "images_per_second": speed,
        }
        words = f"D {losses.discriminator:.3f}  G {losses.generator:.3f}  penalty {losses.penalty:.2f}"
        return Figures(values, f"{words}  {speed:.0f} img/s")

    def counts(self) -> dict[str, int]:
        """What the record of the run counts."""
        return {
            "images_seen": self.images_seen,
            "parameters_generator": sum(p.numel() for p in self.generator.parameters()),
            "parameters_discriminator": sum(p.numel() for p in self.discriminator.parameters()),
        }

    def shape(self) -> dict[str, Any]:
        """What a checkpoint says, beside the configuration, of the generator that can be built from it."""
        return {"classes": self._classes, "image_shape": list(self.generator.image_shape)}

    def take_losses(self) -> Losses:
        """The mean losses since the last call. It waits for the device, so it is asked at intervals only.

        Raises:
            DivergedError: one of them is not finite.
        """
        sums = self._sums.tolist()
        steps = max(self._summed_steps, 1)
        losses = Losses(*(value / steps for value in sums))
        self._sums.zero_()
        self._summed_steps = 0
        if not all(torch.isfinite(torch.tensor(losses))):
            raise DivergedError(
                f"training diverged by step {self.steps}: expected finite losses, got {losses}. Start a new run with "
                "half the learning_rate, with three times the penalty where the loss has one (--set gamma_start=... "
                "--set gamma_end=...), or with --set precision=float32 if this one was bfloat16."
            )
        return losses

    def check_finite(self) -> None:
        """Look at the averaged weights, which are what a checkpoint is kept for.

        Raises:
            DivergedError: one of them is not finite.
        """
        if not all(tensor.isfinite().all() for tensor in self.ema.generator.parameters()):
            raise DivergedError(
                f"training diverged in step {self.steps}: expected finite weights. The last checkpoint is kept; go on "
                "from it with half the learning_rate in a new run."
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come, bit for bit on a CPU with the same number of threads."""
        cuda = self._runtime.device.type == "cuda"
        return {
            "steps": self.steps,
            "images_seen": self.images_seen,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "sampler": self._sampler.state_dict(),
            "random_noise": self._random.get_state(),
            "random_torch": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if cuda else None,
            "device": self._runtime.device.type,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken. On another kind of device the noise starts anew, all else goes on."""
        self.steps = state["steps"]
        self.images_seen = self._images_shown = state["images_seen"]
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.ema.load_state_dict(state["ema"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._sampler.load_state_dict(state["sampler"])
        torch.set_rng_state(state["random_torch"])
        if state["device"] == self._runtime.device.type:
            self._random.set_state(state["random_noise"])
            if state["random_cuda"] is not None:
                torch.cuda.set_rng_state(state["random_cuda"])
