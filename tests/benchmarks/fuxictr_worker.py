"""Train one of FuxiCTR's models on exported rows and score the holdout: a process of its own.

    python fuxictr_worker.py FOLDER MODEL LEARNING_RATE SEED

FOLDER holds what `fuxictr_peer.export` wrote; the scores go to FOLDER/scores-MODEL-SEED.npy. The
library's models and their training step are used as they are, with our schedule. Its data loaders
are not (they start Ray and hold no vectors): the rows are handed over as its `LongCTRDataLoader`
would, sequences padded on the left, oldest first, the candidate last. The sizes are those of the
sample's recipe.
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.torch_utils import seed_everything
from model_zoo.LongCTR import DCNv2, TransAct
from torch.optim.lr_scheduler import LambdaLR

from training.fitting.lightning_module import learning_rate_factor

Inputs = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]
LABEL = "repin"


def main(folder: Path, name: str, learning_rate: float, seed: int) -> None:
    """Train for the recipe's epochs, in an order drawn from the seed, and save the scores."""
    options = json.loads((folder / "options.json").read_text())
    options["learning_rate"] = learning_rate
    seed_everything(seed)
    model = make_model(name, feature_map(options), options, folder)
    training, holdout = (dict(np.load(folder / f"{s}.npz")) for s in ("training", "holdout"))
    rng = np.random.default_rng(seed)
    model._max_gradient_norm, model._batch_index = options["gradient_clip"], 0
    num_rows = len(training["request_of_C"])
    num_steps = options["num_epochs"] * -(-num_rows // options["batch_size"])
    schedule = LambdaLR(
        model.optimizer,
        lambda step: learning_rate_factor(step, options["warmup_steps"], num_steps),
    )
    for epoch in range(options["num_epochs"]):
        model.train()
        losses = []
        for batch in batches(training, rng.permutation(num_rows), options):
            losses.append(model.train_step(batch))
            schedule.step()
        mean = float(torch.stack([loss.detach() for loss in losses]).mean())
        sys.stderr.write(f"    {name}, seed {seed}: epoch {epoch + 1}, loss {mean:.4f}\n")
    everything = np.arange(len(holdout["request_of_C"]))
    np.save(
        folder / f"scores-{name}-{seed}.npy", model.predict(batches(holdout, everything, options))
    )


def feature_map(options: dict[str, Any]) -> FeatureMap:
    """Return the features: the same ones as the ranker's, but for its matches and dot product."""
    width, small = options["embedding_dim"], options["categorical_dim"]
    vector = {"type": "embedding", "pretrain_dim": width, "embedding_dim": width}
    features: OrderedDict[str, dict[str, Any]] = OrderedDict()
    features["user"] = {**vector, "source": "user"}
    for n in range(options["num_numeric"]):
        features[f"numeric_{n}"] = {"type": "numeric", "source": "", "embedding_dim": small}
    for g, size in enumerate(options["vocabularies"]):
        table = {"type": "categorical", "vocab_size": size, "embedding_dim": small}
        features[f"categorical_{g}"] = {**table, "source": ""}
    features["pin"] = {**vector, "source": "item"}
    features["action_type"] = {
        "type": "categorical",
        "source": "item",
        "vocab_size": options["num_action_types"] + 2,  # padding, the types, the candidate's own
        "embedding_dim": options["action_embedding_dim"],
        "padding_idx": 0,
    }
    found = FeatureMap("sample", ".")
    found.features, found.labels, found.default_emb_dim = features, [LABEL], small
    return found


def make_model(
    name: str, features: FeatureMap, options: dict[str, Any], folder: Path
) -> torch.nn.Module:
    """Return one of the library's models, with the recipe's sizes."""
    common: dict[str, Any] = {
        "feature_map": features,
        "model_root": str(folder),
        "metrics": ["AUC"],
        "verbose": 0,
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "learning_rate": options["learning_rate"],
        "embedding_dim": options["categorical_dim"],
        "net_dropout": options["mlp_dropout"],
    }
    if name == "DCNv2":
        return DCNv2(
            **common,
            num_cross_layers=options["num_cross_layers"],
            parallel_dnn_hidden_units=options["mlp_dims"],
        )
    return TransAct(
        **common,
        dcn_cross_layers=options["num_cross_layers"],
        dcn_hidden_units=options["mlp_dims"],
        num_heads=options["num_attention_heads"],
        transformer_layers=options["num_layers"],
        dim_feedforward=options["feedforward_dim"],
        first_k_cols=options["first_k"],
    )


def batches(
    arrays: dict[str, np.ndarray], order: np.ndarray, options: dict[str, Any]
) -> Iterator[Inputs]:
    """Yield scalars, items (sequence and candidate) and the sequence's mask, batch by batch."""
    for start in range(0, len(order), options["batch_size"]):
        row = order[start : start + options["batch_size"]]
        request = arrays["request_of_C"][row]
        types = np.flip(arrays["action_types_RS"][request], axis=1).astype(np.int64)
        pins = np.flip(arrays["action_pins_RSE"][request], axis=1)
        own_type = np.full((len(row), 1), options["num_action_types"] + 1)
        all_types = np.concatenate([types, own_type], axis=1)
        all_pins = np.concatenate([pins, arrays["candidate_pins_CE"][row][:, None]], axis=1)
        scalars = {"user": arrays["users_RE"][request], LABEL: arrays["labels_C"][row]}
        for n, column in enumerate(arrays["numeric_CN"][row].T):
            scalars[f"numeric_{n}"] = column
        for g, column in enumerate(arrays["categorical_CG"][row].T):
            scalars[f"categorical_{g}"] = column
        yield (
            {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in scalars.items()},
            {
                "pin": torch.from_numpy(all_pins.reshape(-1, all_pins.shape[2])),
                "action_type": torch.from_numpy(all_types.ravel()),
            },
            torch.from_numpy((types > 0).astype(np.float32)),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
