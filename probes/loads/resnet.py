"""ResNet-50 in plain torch: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1."""

from __future__ import annotations

from typing import Any

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first
_EXPANSION = 4


def resnet50(torch: Any, classes: int = 1000) -> Any:
    """The network, with random weights, as a ``torch.nn.Module`` from images (n, 3, 224, 224) to logits."""
    nn = torch.nn

    def convolution(into: int, out: int, size: int, stride: int = 1) -> list[Any]:
        layer = nn.Conv2d(into, out, size, stride=stride, padding=size // 2, bias=False)
        return [layer, nn.BatchNorm2d(out)]

    class Bottleneck(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, into: int, width: int, stride: int) -> None:
            super().__init__()
            out = width * _EXPANSION
            self.body = nn.Sequential(
                *convolution(into, width, 1), nn.ReLU(),
                *convolution(width, width, 3, stride), nn.ReLU(),
                *convolution(width, out, 1),
            )  # fmt: skip
            same = into == out and stride == 1
            self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(into, out, 1, stride))

        def forward(self, images: Any) -> Any:
            return nn.functional.relu(self.body(images) + self.shortcut(images))

    layers = [*convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    into = 64
    for width, blocks, stride in _STAGES:
        for index in range(blocks):
            layers.append(Bottleneck(into, width, stride if index == 0 else 1))
            into = width * _EXPANSION
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes))
