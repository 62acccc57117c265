"""A transformer encoder that reads an image row by row, for `model: {module: "examples/transformer.py:Rows"}`."""

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """One token a row of the image, one encoder layer, a linear layer on the mean of the tokens."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        _, height, columns = input_shape
        self.embed = nn.Linear(columns, width)
        self.place = nn.Parameter(0.02 * torch.randn(height, width))
        self.encoder = nn.TransformerEncoderLayer(
            width, heads, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True
        )
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (n, classes) of images (n, 1, height, columns)."""
        tokens = self.embed(images.squeeze(1)) + self.place
        outputs: Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return outputs
