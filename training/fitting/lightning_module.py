"""What one optimizer step is: forward, weighted loss, finite or stop, Adam with warm-up and cosine.

Not for the loop around it (`training.fitting.fit`) nor for the model (`training.model.ranker`).
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.hashing import seed_of
from training.data.batches import Batch, FeatureStatistics, visible_actions
from training.model.loss import label_weight_matrix, weighted_loss
from training.model.ranker import Ranker

_WEIGHTS_SALT, _DROPOUT_SALT = 201, 202


class RankerModule(pl.LightningModule):
    """The ranker in training.

    Randomness within a step (dropout) comes from torch's generator, seeded anew before every step
    from (seed, step, rank); the windows T come with the batch, seeded by (seed, epoch). So the
    state of all generators is the step itself, which is in the checkpoint.
    """

    def __init__(
        self, config: RunConfig, statistics: FeatureStatistics, embedding_dim: int, num_steps: int
    ) -> None:
        super().__init__()
        self.config = config
        self.num_steps = num_steps
        torch.manual_seed(seed_of(config.training.seed, _WEIGHTS_SALT))
        self.ranker = Ranker(config.features, config.model, embedding_dim)
        self.ranker.adopt(statistics)
        self.register_buffer("label_weights_HL", label_weight_matrix(config.features))
        self.gradient_norm = torch.tensor(0.0)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this step's dropout."""
        seed = self.config.training.seed
        torch.manual_seed(seed_of(seed, _DROPOUT_SALT, self.global_step, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss whose mean over the ranks is the global mean per candidate.

        Raises:
            DataContractError: the loss is NaN or infinite; no weight was changed by it.
        """
        is_visible_RS = visible_actions(batch, self.config.model.time_window_mask_hours)
        logits_CH = self.ranker(batch, is_visible_RS)
        # DDP averages gradients over the ranks: a share times their number averages to the sum.
        share = weighted_loss(logits_CH, batch, self.get_buffer("label_weights_HL"))
        loss = share * self.trainer.world_size
        if not torch.isfinite(loss):
            raise self._diverged("loss", loss)
        return loss

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the global gradient norm, and stop before the step if it is not finite.

        Raises:
            DataContractError: the norm is NaN or infinite; no weight was changed by it.
        """
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(
            self.parameters(), self.config.training.gradient_clip
        )
        if not torch.isfinite(self.gradient_norm):
            raise self._diverged("gradient norm", self.gradient_norm)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return Adam (AdamW where there is decay) and its schedule, stepped with every batch."""
        training = self.config.training
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,  # one pass over the weights instead of a dozen
        )
        warmup_steps = min(training.warmup_steps, self.num_steps // 2)
        schedule = LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, warmup_steps, self.num_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }

    def _diverged(self, what: str, found: Tensor) -> DataContractError:
        training, num_batches = self.config.training, int(self.trainer.num_training_batches)
        return DataContractError(
            f"training diverged at step {self.global_step}, epoch {self.current_epoch}, batch "
            f"{self.global_step % num_batches}: {what} is {found.item()}, expected a finite "
            f"number; no weight was changed by it. Lower training.learning_rate "
            f"({training.learning_rate}) or training.gradient_clip ({training.gradient_clip}), and "
            f"look for extreme feature values"
        )


def learning_rate_factor(step: int, warmup_steps: int, num_steps: int) -> float:
    """Return the share of the peak rate at a step: linear up to 1, then a half cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
