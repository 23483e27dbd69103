"""The encoder's layers one after another, as PyTorch's own operations compute them.

They run on every device, with dropout, with several attention heads and in compiled code. The
faster way for CPUs, `training.model.encoder.cpu`, gives the same numbers up to rounding. Tested in
tests/training/model/encoder/test_reference_encoder.py and cpu/test_door.py.

Letters: R requests, S tokens, M candidates of a request, E pin embedding, D token width, d sequence
channels (action type and pin), K newest actions.
"""

from collections.abc import Sequence

from torch import Tensor

from training.model.encoder.layer import TransformerLayer
from training.model.encoder.output_columns import output_columns
from training.model.encoder.tokens import TokenRoles


def encode(
    layers: Sequence[TransformerLayer],
    sequence_RSd: Tensor,
    candidates_RME: Tensor,
    roles: TokenRoles,
) -> Tensor:
    """Return the output columns of each candidate, float [R, M, 1 + K, D].

    Args:
        layers: at least one.
        sequence_RSd: float [R, S, d].
        candidates_RME: float [R, M, E], with d + E = D.
        roles: what each token is used for.
    """
    first, *later = layers
    tokens_RMSD = first.first(sequence_RSd, candidates_RME, roles.log_count_RS)
    for layer in later:
        tokens_RMSD = layer(tokens_RMSD, roles.log_count_RS)
    return output_columns(tokens_RMSD, roles.num_pooled_R, roles.newest_RK)
