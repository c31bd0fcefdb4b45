"""The shape and size of an image variational encoder, as data, and the ones with a name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from cf_encoders.configs import config_from_dict, require_positive, require_shape

MeanFrom = Literal["features", "image"]


@dataclass(frozen=True)
class ImageVEConfig:
    """Shape and size of an ImageVE.

    image, latent: (c, h, w) it is made for. The latent's height and width are those of the image divided by one
    power of two, or equal; other images of the same proportions to the latent are read as well.
    widths: channels of each level of the body; every level halves height and width. The latent leaves at the level
    of its size; the levels below only widen the view.

    mean_from: `features` lets the body write the mean. `image` makes it image + body, and the body starts at zero:
    between images of one shape (super-resolution) the source already is the enlarged image (CrossFlow sec. 5.3), and
    an encoder that had to learn the identity first would lose detail it never had to touch. Take the KL's `released`
    form there: it asks a mean within [-1, 1] for less than 4e-4, where the paper's pulls the image towards grey.
    """

    image: tuple[int, int, int]
    latent: tuple[int, int, int]
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 1  # residual blocks of a level, down and again up
    groups: int = 8  # of each GroupNorm
    mean_from: MeanFrom = "features"
    mean_std: float = 0.35  # std of the mean at initialisation; `features` only
    sigma: float = 0.6  # sigma at initialisation
    decoder: bool = True  # z_0 -> image, for a reconstruction loss

    def __post_init__(self) -> None:
        require_shape(self, "image")
        require_shape(self, "latent")
        require_positive(self, "blocks", "groups")
        if not self.widths or any(width < 1 or width % self.groups for width in self.widths):
            raise ValueError(
                f"widths must be positive multiples of groups={self.groups}, got {tuple(self.widths)}"
            )
        if self.mean_from not in get_args(MeanFrom):
            raise ValueError(f"unknown mean_from {self.mean_from!r}; known: {', '.join(get_args(MeanFrom))}")
        if self.sigma <= 0 or self.mean_std <= 0:
            raise ValueError(f"sigma and mean_std must be > 0, got {self.sigma} and {self.mean_std}")
        self._check_level()
        self.latent_shape(*self.image[1:])
        if self.mean_from == "image" and self.latent != self.image:
            raise ValueError(
                f"mean_from='image' needs latent = image, got {self.latent} and {self.image}; take 'features'"
            )

    def _check_level(self) -> None:
        (_, h, w), (_, low_h, low_w) = self.image, self.latent
        shrink = h // low_h
        if (low_h * shrink, low_w * shrink) != (h, w) or shrink & (shrink - 1):
            raise ValueError(
                f"latent {low_h} x {low_w} must be the image's {h} x {w} divided by a power of two, the same both ways"
            )
        if self.level >= len(self.widths):
            raise ValueError(
                f"an image {shrink} times the latent needs {self.level + 1} widths or more, got {len(self.widths)}"
            )

    @property
    def level(self) -> int:
        """How often the image is halved on the way to the latent."""
        return (self.image[1] // self.latent[1]).bit_length() - 1

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latent of an image of this size; ValueError where the levels do not divide it."""
        shrink = 2 ** (len(self.widths) - 1)
        if height % shrink or width % shrink:
            raise ValueError(
                f"{len(self.widths)} widths need height and width divisible by {shrink}, got {height} x {width}; "
                "resize, crop or pad"
            )
        return self.latent[0], height >> self.level, width >> self.level

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageVEConfig":
        """The inverse of `to_dict`; an unknown key is a ValueError that lists the known ones."""
        return config_from_dict(cls, values)


IMAGE_VES: dict[str, ImageVEConfig] = {
    # for a CPU: captioned_shapes at 32 px
    "tiny": ImageVEConfig(image=(3, 32, 32), latent=(1, 32, 32), widths=(16, 32, 48)),
    "tiny-superres": ImageVEConfig(
        image=(3, 32, 32),
        latent=(3, 32, 32),
        widths=(16, 32, 48),
        mean_from="image",
        sigma=0.2,
        decoder=False,
    ),
    # pixel space, RGB -> the shape of a depth map; the paper's 527M leave it about 3M beside a 524M backbone
    "depth-paper": ImageVEConfig(image=(3, 256, 256), latent=(1, 256, 256), widths=(32, 64, 96, 128)),
    # 64 -> 256 px: x_0 is the enlarged image, corrected
    "superres": ImageVEConfig(
        image=(3, 256, 256),
        latent=(3, 256, 256),
        widths=(32, 64, 96, 128),
        mean_from="image",
        sigma=0.2,
        decoder=False,
    ),
}


def image_ve_preset(name: str) -> ImageVEConfig:
    """The config by name; change a field with `dataclasses.replace`. ValueError lists the names."""
    if name not in IMAGE_VES:
        raise ValueError(f"unknown image encoder {name!r}; known: {', '.join(IMAGE_VES)}")
    return IMAGE_VES[name]
