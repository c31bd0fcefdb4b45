"""A feature space to compare pictures in: the last hidden layer of a small classifier of the same data.

Its distance is not an FID. It sees what tells the classes of this data set apart.
"""

import torch
import torch.nn.functional as F
from fm_images import Images
from jaxtyping import Float, UInt8
from torch import Tensor, nn

WIDTH = 64


class Classifier(nn.Module):
    """Two strided convolutions, a pooled hidden layer of 64."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.SiLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, WIDTH), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, pixels: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]) -> Float[Tensor, "b 64"]:
        """Features of bytes, or of pictures on [-1, 1] rounded to bytes as a viewer would."""
        if pixels.is_floating_point():
            pixels = ((pixels + 1) * 128).floor().clamp(0, 255)
        return self.body(pixels.float() / 127.5 - 1)


def train_features(
    train: Images, test: Images, device: torch.device, *, steps: int = 1500, seed: int = 0
) -> tuple[Classifier, str]:
    """The classifier and its name, with its accuracy on the test part: what a distance in this space is worth."""
    classes = int(train.labels.max()) + 1
    if classes < 2:
        raise SystemExit("the data has no classes to learn features from; name a data set with labels")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Classifier(train.pixels.shape[1], classes).to(device)
    adam = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(train.pixels), (128,), generator=generator)
        logits = net.head(net(train.pixels[rows].to(device)))
        adam.zero_grad()
        F.cross_entropy(logits, train.labels[rows].to(device)).backward()
        adam.step()
        schedule.step()
    net.eval().requires_grad_(False)
    found = torch.cat([net.head(net(part.to(device))).argmax(1).cpu() for part in test.pixels.split(1000)])
    accuracy = (found == test.labels).float().mean().item()
    side = train.pixels.shape[-1]
    return (
        net,
        f"last hidden layer ({WIDTH}) of a classifier of this data at {side} px, test accuracy {accuracy:.3f}",
    )
