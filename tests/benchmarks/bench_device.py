"""What the encoder costs a device beside the public formulation: counted anywhere, timed on a GPU.

Rows `device_*` are counted by torch (tests/support/device_cost.py). Rows `gpu_*` are measured where
a GPU is, by `make bench-gpu`; nobody has measured them so far. `append_train_step` is measured on
the host: a whole training step of 30 candidates per request, the recipe `production` in float32.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from bench_encoder import EMBEDDING_DIM, NUM_TYPES, Inputs, make_inputs
from record import Row, row
from timed import call, in_turns
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from pipelines.contracts.config import ModelConfig
from pipelines.recipes import production
from support.device_cost import step_cost
from support.plain_encoder import PlainTransAct
from training.data.batches import for_scoring
from training.environment import model_environment
from training.model.encoder.sequence_encoder import SequenceEncoder
from training.model.ranker import Ranker

CANDIDATES, NUM_REQUESTS, MOST_CANDIDATES = (8, 30), 32, 30
TURNS, GPU_REQUESTS = 9, 512
Step = Callable[[], object]


def measure() -> list[Row]:
    """Return what was counted, the step of `append`, and a GPU's rows where one is."""
    appended = call("bench_device", "append_step", environment=model_environment(1)).told
    rows = [*_counted(), Row.model_validate(appended)]
    if torch.cuda.is_available():
        return rows + [_on_gpu(num_candidates) for num_candidates in (8, 30)]
    sys.stderr.write("no GPU is here: the rows gpu_* were not measured\n")
    return rows


def _counted() -> list[Row]:
    rows = []
    for num_candidates in CANDIDATES:
        costs = {
            (num_heads, each): step_cost(
                _encoder(each, num_heads), make_inputs(np.full(NUM_REQUESTS, 100), num_candidates)
            )
            for num_heads in (1, 2)
            for each in (PlainTransAct, SequenceEncoder)
        }
        (plain, ours), (plain_2, ours_2) = (
            [costs[num_heads, each] for each in (PlainTransAct, SequenceEncoder)]
            for num_heads in (1, 2)
        )
        total = NUM_REQUESTS * num_candidates
        for place, (name, unit, scale) in enumerate(
            [("operations", "million", 1e6), ("bytes", "KB", 1e3)]
        ):
            if name == "bytes" and num_candidates > 8:  # fewer than with 8
                continue
            rows.append(
                row(
                    f"device_{name}_{num_candidates}_candidates",
                    ours[place] / scale / total,
                    unit,
                    ratio=ours[place] / plain[place],
                    peer=f"public, {plain[place] / scale / total:,.1f}",
                    spread="counted",
                    rows=total,
                    note="of a candidate in a training step of 100 actions; the peer is given each "
                    "candidate's own sequence, ours pin keys, ages and the plan too; with two "
                    f"heads the ratio is {ours_2[place] / plain_2[place]:.2f}",
                )
            )
    return rows


def _encoder(
    kind: type[PlainTransAct] | type[SequenceEncoder], num_heads: int
) -> PlainTransAct | SequenceEncoder:
    torch.manual_seed(2)
    config = ModelConfig(num_attention_heads=num_heads, encoder_variant="reference")
    return kind(NUM_TYPES, EMBEDDING_DIM, config)


def append_step() -> dict:
    """Return the row of a training step with the variant `append`, as JSON."""
    torch.set_num_threads(2)
    features = production().features
    inputs = make_inputs(np.full(NUM_REQUESTS, 100), MOST_CANDIDATES)
    num_candidates, visible_RS = len(inputs["request_of_C"]), inputs.pop("is_visible_RS")
    inputs["action_pin_keys_RS"] = torch.arange(visible_RS.numel()).view(visible_RS.shape)
    inputs["action_ages_ms_RS"] = inputs["action_pin_keys_RS"] * 1000
    inputs["candidate_pin_keys_C"] = torch.arange(num_candidates)
    inputs["users_RE"] = torch.randn(NUM_REQUESTS, EMBEDDING_DIM)
    num_codes = len(features.categorical)
    inputs["categorical_CG"] = torch.zeros(num_candidates, num_codes, dtype=torch.int64)
    inputs["numeric_CN"] = torch.zeros(num_candidates, len(features.numeric_inputs))
    batch = for_scoring(inputs, len(features.heads))

    def step_of(variant: str) -> Step:
        config = production().model.model_copy(update={"encoder_variant": variant})
        ranker = Ranker(features, config, EMBEDDING_DIM).train()
        optimizer = torch.optim.AdamW(ranker.parameters(), fused=True)

        def step() -> None:
            optimizer.zero_grad()
            logits_CH = ranker(batch, visible_RS)
            F.binary_cross_entropy_with_logits(logits_CH, batch.labels_CH).backward()
            optimizer.step()

        return step

    times = _in_turn([step_of("default"), step_of("append")], lambda: None)
    ratios = times[:, 1] / times[:, 0]
    default_s, append_s = np.median(times, axis=0)
    return row(
        "append_train_step",
        1000 * append_s,
        "ms",
        ratio=float(np.median(ratios)),
        peer=f"default, {1000 * default_s:,.0f} ms",
        spread=f"{ratios.min():.2f} to {ratios.max():.2f}",
        rows=num_candidates,
        note="production in float32, two threads, 9 turns beside other work",
    ).model_dump(mode="json")


def _in_turn(steps: list[Step], wait: Step) -> np.ndarray:
    """Return seconds, [TURNS, steps], of each in turn; the first turns warm up."""
    times = []
    for _ in range(TURNS + 2):
        times.append([])
        for step in steps:
            started = time.perf_counter()
            step()
            wait()
            times[-1].append(time.perf_counter() - started)
    return np.array(times[2:])


def _on_gpu(num_candidates: int, device: str = "cuda") -> Row:
    """Return candidates per second beside the public module, plain and compiled, in bfloat16.

    Ours may not wait for the device, and must take a flash or a memory-efficient kernel.
    """
    host = make_inputs(np.full(GPU_REQUESTS, 100), num_candidates)
    is_cuda, total = device == "cuda", len(host["request_of_C"])
    plain, ours = (_encoder(each, 1).to(device) for each in (PlainTransAct, SequenceEncoder))
    names = ("action_types_RS", "action_pins_RSE", "is_visible_RS", "request_of_C")
    inputs, planned = (
        tree_map_only(Tensor, lambda part: part.to(device), each)
        for each in (host, host | {"plan": ours.plan(*map(host.get, names))})
    )

    def step_of(module: Callable[..., Tensor], given: Inputs) -> Step:
        def step() -> None:
            with torch.autocast(device, torch.bfloat16):
                encoded = module(**given)
            encoded.float().sum().backward()

        return step

    strict, kernels = step_of(ours, planned), [SDPBackend.FLASH_ATTENTION]
    kernels += [SDPBackend.EFFICIENT_ATTENTION] if is_cuda else []

    def ours_without_waiting() -> None:
        if is_cuda:
            torch.cuda.set_sync_debug_mode("error")
        with sdpa_kernel(kernels):
            strict()
        if is_cuda:
            torch.cuda.set_sync_debug_mode("default")

    matrix = torch.randn(8192 if is_cuda else 512, 8192 if is_cuda else 512, device=device)
    matrix = matrix.bfloat16()
    steps = [step_of(plain, inputs), step_of(torch.compile(plain), inputs), ours_without_waiting]
    steps.append(lambda: matrix @ matrix)
    times = _in_turn(steps, torch.cuda.synchronize if is_cuda else lambda: None)
    plain_s, compiled_s, ours_s, product_s = np.median(times, axis=0)
    operations = step_cost(_encoder(SequenceEncoder, 1), host)[0]
    share = operations / ours_s / (2 * len(matrix) ** 3 / product_s)
    ratios = np.minimum(times[:, 0], times[:, 1]) / times[:, 2]
    return row(
        f"gpu_train_{num_candidates}_candidates",
        total / ours_s,
        "candidates/s",
        ratio=float(np.median(ratios)),
        peer=f"nn.TransformerEncoder, {total / plain_s:,.0f}/s, "
        f"compiled {total / compiled_s:,.0f}/s",
        spread=in_turns(ratios),
        rows=total,
        note=f"bfloat16 on {torch.cuda.get_device_name() if is_cuda else device}; "
        f"{100 * share:.0f} % of the rate of a large product; the ratio is to the faster peer",
    )
