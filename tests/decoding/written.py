"""Tiny models for tests of decoding."""

from torch import Tensor, nn

from raymdm.models import Backbone, ModelShape, build_model

EOS, MASK, PAD = 21, 22, 23
SHAPE = ModelShape(
    vocabulary_size=24,
    hidden_size=16,
    layers=2,
    heads=4,
    key_value_heads=4,
    intermediate_size=32,
    mask_token_id=MASK,
    eos_token_id=EOS,
    pad_token_id=PAD,
)


def tiny_model(shape: ModelShape = SHAPE, seed: int = 1) -> Backbone:
    """In float64: rows that are computed in other company then differ far less than any two
    confidences.
    """
    return build_model(shape, seed, 0.8).double()


class Fixed(nn.Module):
    """Gives the same logits to a column whatever it reads: one row [V], or a table [L, V]."""

    shape = SHAPE

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.widths: list[int] = []
        self.selected: list[int] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, select: Tensor) -> Tensor:
        self.widths.append(len(input_ids))
        self.selected.append(int(select.sum()))
        columns = select.nonzero()[:, 1]
        table = self.logits if self.logits.ndim == 2 else self.logits.expand(999, -1)
        return table[columns]
