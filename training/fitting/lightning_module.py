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
from torch.utils._pytree import tree_map_only

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.hashing import seed_of
from training.data.batches import Batch, FeatureStatistics, visible_actions
from training.model.encoder.sequence_encoder import Plan
from training.model.loss import label_weight_matrix, weighted_loss
from training.model.ranker import Ranker

_WEIGHTS_SALT, _DROPOUT_SALT = 201, 202
Planned = tuple[Batch, Tensor, Plan | None]


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
        self.loss = self.gradient_norm = torch.tensor(0.0)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Planned:
        """Return the batch with what is visible and the encoder's plan.

        Made here, on the host, they wait for no device. What is pinned is copied meanwhile.
        """
        is_visible_RS = visible_actions(batch, self.config.model.time_window_mask_hours)
        planned = batch, is_visible_RS, self.ranker.plan(batch, is_visible_RS)
        return tree_map_only(Tensor, Tensor.pin_memory, planned) if self.on_gpu else planned

    def on_train_batch_start(self, batch: Planned, batch_idx: int) -> None:
        """Seed this step's dropout, and look at the step before, of which a GPU is done by now."""
        self.require_finite()
        seed = self.config.training.seed
        torch.manual_seed(seed_of(seed, _DROPOUT_SALT, self.global_step, self.global_rank))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to save a step that failed."""
        self.require_finite()

    def training_step(self, planned: Planned, batch_idx: int) -> Tensor:
        """Return the loss whose mean over the ranks is the global mean per candidate.

        Nothing in it waits for a device (tests/training/fitting/test_lightning_module.py).
        """
        batch, is_visible_RS, plan = planned
        logits_CH = self.ranker(batch, is_visible_RS, plan)
        # DDP averages gradients over the ranks: a share times their number averages to the sum.
        share = weighted_loss(logits_CH, batch, self.get_buffer("label_weights_HL"))
        loss = share * self.trainer.world_size
        self.loss = loss.detach()
        return loss

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the global gradient norm, and let the step change nothing if it is not finite."""
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(
            self.parameters(), self.config.training.gradient_clip
        )
        # The fused optimizer reads this where the weights are, so that the host need not wait.
        optimizer.found_inf = (~torch.isfinite(self.loss + self.gradient_norm)).float()

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

    def require_finite(self) -> None:
        """Stop after a step whose loss or gradients were not finite; it changed no weight.

        Raises:
            DataContractError: the loss or the gradients' norm is NaN or infinite.
        """
        loss, norm = float(self.loss), float(self.gradient_norm)
        if math.isfinite(loss + norm):
            return
        training, step = self.config.training, self.global_step - 1
        epoch, batch = divmod(step, int(self.trainer.num_training_batches))
        raise DataContractError(
            f"training diverged at step {step}, epoch {epoch}, batch {batch}: loss is {loss}, "
            f"gradient norm is {norm}, expected finite numbers; no weight was changed by it. "
            f"Lower training.learning_rate ({training.learning_rate}) or training.gradient_clip "
            f"({training.gradient_clip}), and look for extreme feature values"
        )


def learning_rate_factor(step: int, warmup_steps: int, num_steps: int) -> float:
    """Return the share of the peak rate at a step: linear up to 1, then a half cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
