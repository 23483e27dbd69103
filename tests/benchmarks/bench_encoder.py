"""The encoder against `nn.TransformerEncoder`: same weights, same outputs, same gradients.

With dropout (0.1, as published) the peer draws more: for attention's weights and the hidden
feed-forward channels too, where ours has none.

In `encoder_train_sample_f32` the sequences are the sample's own, in the other rows no two actions
are alike.

Both are given the same batches of 8 candidates per request, in this process, turn by turn. The peer
is the plain formulation of tests/support: one row per candidate, padded to the full length.
"""

import copy
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from record import Row, row
from sample import AS_OF, HOME, make_run, variant
from timed import call
from torch import Tensor

from pipelines import storage
from pipelines.contracts.config import ModelConfig
from pipelines.contracts.schemas import SPLIT_TRAINING
from pipelines.snapshot.build import write_snapshot
from support.plain_encoder import PlainTransAct
from support.public_weights import load_public_weights
from training.data.reader import SnapshotReader
from training.environment import model_environment
from training.model.encoder.matrix_products import linear
from training.model.encoder.sequence_encoder import SequenceEncoder

NUM_TYPES, EMBEDDING_DIM = 5, 32
NUM_REQUESTS, CANDIDATES = 32, 8
REPETITIONS, PROCESSES, THREADS = 9, 3, 2
Inputs = dict[str, Tensor]


def measure() -> list[Row]:
    """Return a row per setting: training by heads, dropout, lengths and precision; inference.

    Measured with the allocator as it comes, which is the row, and as our training sets it, which
    helps the peer more and stands in the row's note. Each in several processes, as every process
    lies differently in memory: a row is that of the process with the median ratio.
    """
    rows = []
    for plain, tuned in zip(*map(_measured, ({}, model_environment(1))), strict=True):
        middle = plain[PROCESSES // 2]
        ratios = [", ".join(f"{row.ratio:.2f}" for row in each) for each in (plain, tuned)]
        note = (
            f"{middle.note}; {PROCESSES} processes: ratios {ratios[0]}; with the allocator set as "
            f"in training: {ratios[1]}"
        )
        rows.append(middle.model_copy(update={"note": note}))
    return rows


def _measured(environment: dict[str, str]) -> list[list[Row]]:
    """Return, per setting, the rows of all processes, sorted by ratio."""
    runs = [call("bench_encoder", "main", environment=environment) for _ in range(PROCESSES)]
    settings = zip(*(map(Row.model_validate, ran.told) for ran in runs), strict=True)
    return [sorted(rows, key=lambda row: row.ratio or 0.0) for rows in settings]


def main() -> list[dict]:
    """Measure in this process, and return the rows as JSON."""
    torch.set_num_threads(THREADS)
    full, sample = make_inputs(np.full(NUM_REQUESTS, 100)), _sample_inputs()
    # the sample's histories are nearly all full; these are every length alike
    even = make_inputs(np.linspace(1, 100, NUM_REQUESTS).round().astype(np.int64))
    rows = [
        _training("encoder_train_full_f32", full),
        _training("encoder_train_full_f32_dropout", full, dropout=0.1),
        _training("encoder_train_full_f32_two_heads", full, num_heads=2),
        _training("encoder_train_full_f32_two_heads_dropout", full, num_heads=2, dropout=0.1),
        _training("encoder_train_sample_f32", sample),
        _training("encoder_train_even_f32", even),
        _training("encoder_train_full_bf16", full, is_bf16=True),
        _inference("encoder_infer_full_f32", full),
        _inference("encoder_infer_full_f32_two_heads", full, num_heads=2),
    ]
    return [each.model_dump(mode="json") for each in rows]


def make_inputs(lengths: np.ndarray, candidates: int = CANDIDATES) -> Inputs:
    """Return requests with that many actions, and candidates for each."""
    generator = torch.Generator().manual_seed(1)
    is_action = torch.arange(int(lengths.max())) < torch.as_tensor(lengths)[:, None]
    types = torch.randint(1, NUM_TYPES + 1, is_action.shape, generator=generator)
    pins = torch.randn(*is_action.shape, EMBEDDING_DIM, generator=generator)
    num_candidates = len(lengths) * candidates
    return {
        "action_types_RS": types * is_action,
        "action_pins_RSE": pins * is_action[:, :, None],
        "is_visible_RS": is_action,
        "candidate_pins_CE": torch.randn(num_candidates, EMBEDDING_DIM, generator=generator),
        "request_of_C": torch.arange(len(lengths)).repeat_interleave(candidates),
    }


def _sample_inputs() -> Inputs:
    """Return sequences of the sample's training requests, from short to long drawn evenly.

    The candidates are random, as many of each request. The plain formulation has no use for keys.
    """
    snapshot = write_snapshot(make_run(variant(17), AS_OF, HOME / "bench"))
    folder = storage.local_path(snapshot.uri)
    reader = SnapshotReader(snapshot.shards, folder, snapshot.features, max_actions=100)
    index = reader.index(SPLIT_TRAINING)
    by_length = np.argsort(index.num_actions_M, kind="stable")
    places = (np.arange(NUM_REQUESTS) + 0.5) / NUM_REQUESTS * len(by_length)
    batch = reader.make_batch(index.take(by_length[places.astype(np.int64)]))
    return make_inputs(index.num_actions_M[by_length[places.astype(np.int64)]]) | {
        "action_types_RS": batch.action_types_RS,
        "action_pins_RSE": batch.action_pins_RSE / batch.action_pins_RSE.std(),
        "action_pin_keys_RS": batch.action_pin_keys_RS,
    }


def _pair(num_heads: int, dropout: float) -> tuple[PlainTransAct, SequenceEncoder]:
    torch.manual_seed(2)
    config = ModelConfig(
        num_attention_heads=num_heads, dropout=dropout, encoder_variant="reference"
    )
    plain = PlainTransAct(NUM_TYPES, EMBEDDING_DIM, config)
    ours = SequenceEncoder(NUM_TYPES, EMBEDDING_DIM, config)
    load_public_weights(ours, plain.state_dict())
    return plain, ours


def _training(
    name: str, inputs: Inputs, *, num_heads: int = 1, dropout: float = 0.0, is_bf16: bool = False
) -> Row:
    plain, ours = _pair(num_heads, dropout)
    target = torch.randn(len(inputs["request_of_C"]), ours.output_dim) / 100
    difference = _difference(*_pair(num_heads, 0.0), inputs, target)

    def step(module: torch.nn.Module, is_autocast: bool) -> None:
        module.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            encoded = module(**inputs)
        (encoded.float() * target).sum().backward()

    times = _interleaved(lambda: step(plain, False), lambda: step(ours, is_bf16))
    what = f"training step, dropout {dropout}"
    return _row(name, inputs, times, 3, difference, what)


def _inference(name: str, inputs: Inputs, *, num_heads: int = 1) -> Row:
    plain, ours = _pair(num_heads, 0.0)
    plain.eval(), ours.eval()
    with torch.inference_mode():
        largest = float((plain(**inputs) - ours(**inputs)).abs().max())
        times = _interleaved(lambda: plain(**inputs), lambda: ours(**inputs))
    difference = f"outputs {largest:.1e} in float32"
    return _row(name, inputs, times, 1, difference, "inference, the peer on its fast path")


def _difference(plain: PlainTransAct, ours: SequenceEncoder, inputs: Inputs, target: Tensor) -> str:
    """Return the largest difference of outputs, and of gradients relative to the largest.

    Gradients in float64: in float32 a max pool now and then picks another of two positions that
    differ by less than rounding, and their gradients are not alike.
    """
    outputs = float((plain(**inputs) - ours(**inputs)).detach().abs().max())
    plain, ours = copy.deepcopy(plain).double(), copy.deepcopy(ours).double()
    inputs = {name: v.double() if v.is_floating_point() else v for name, v in inputs.items()}
    for module in (plain, ours):
        (module(**inputs) * target.double()).sum().backward()
    expected = copy.deepcopy(ours)
    load_public_weights(expected, {key: p.grad for key, p in plain.named_parameters()})
    gradients = [
        float((p.grad - q.detach()).abs().max() / q.detach().abs().max().clamp(min=1))
        for p, q in zip(ours.parameters(), expected.parameters(), strict=True)
        if p.grad is not None
    ]
    return f"outputs {outputs:.1e} in float32, gradients {max(gradients):.1e} in float64"


def _interleaved(peer: Callable[[], object], ours: Callable[[], object]) -> np.ndarray:
    """Return seconds, [REPETITIONS, 2], of both in turn; the first turns warm up."""
    times = []
    for turn in range(REPETITIONS + 2):
        pair = []
        for run in (peer, ours):
            started = time.perf_counter()
            run()
            pair.append(time.perf_counter() - started)
        if turn >= 2:
            times.append(pair)
    return np.array(times)


def _row(
    name: str, inputs: Inputs, times: np.ndarray, passes: int, difference: str, what: str
) -> Row:
    peer_s, ours_s = np.median(times, axis=0)
    ratios = times[:, 0] / times[:, 1]
    peak = _peak_flops()
    share = passes * _plain_flops(inputs) / peer_s / peak
    length = inputs["is_visible_RS"].sum(dim=1).double().mean()
    return row(
        name,
        1000 * ours_s,
        "ms",
        ratio=float(np.median(ratios)),
        peer=f"nn.TransformerEncoder, {1000 * peer_s:.1f} ms",
        spread=f"{ratios.min():.2f} to {ratios.max():.2f}",
        rows=len(inputs["request_of_C"]),
        note=(
            f"{what}, {len(ratios)} turns; the peer is plain and in float32; {length:.0f} actions "
            f"on average; "
            f"{THREADS} threads; differences without dropout: {difference}; peak float32 matmul "
            f"rate {peak / 1e9:.0f} GFLOP/s, of which the peer reaches {100 * share:.0f} % and "
            f"ours, credited with the peer's arithmetic, {100 * share * peer_s / ours_s:.0f} %"
        ),
    )


def _plain_flops(inputs: Inputs) -> float:
    """Return the multiplications and additions of the plain formulation's forward pass."""
    width, hidden, length, layers = 96, 32, 100, 2
    per_token = 4 * width**2 + 2 * width * hidden + 2 * length * width
    return 2.0 * per_token * length * layers * len(inputs["request_of_C"])


def _peak_flops(size: int = 1024) -> float:
    """Return the faster rate, MKL's or oneDNN's, of a large float32 product, per second."""
    matrix = torch.randn(size, size)
    times: dict[Callable[[Tensor, Tensor], Tensor], list[float]] = {torch.mm: [], linear: []}
    for _ in range(9):
        for product, taken in times.items():
            started = time.perf_counter()
            product(matrix, matrix)
            taken.append(time.perf_counter() - started)
    return 2 * size**3 / min(statistics.median(taken) for taken in times.values())
