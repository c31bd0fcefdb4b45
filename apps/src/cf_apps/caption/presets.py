"""Named recipes of both trainings: the text autoencoder, and the flow from pictures to its latents."""

from collections.abc import Callable
from dataclasses import replace

from cf_encoders import ImageVEConfig, TextVEConfig
from cf_encoders.captions import CaptionAutoencoderConfig, CaptionDecoderConfig
from cf_transformer import DiMRConfig, StageConfig
from cf_transformer.presets import rung

from cf_apps.caption.config import CaptionConfig, LossConfig, TextConfig
from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.commands.recipe import Recipe
from cf_apps.engine.config import MINUTES_ON_A_CPU, FitConfig
from cf_apps.engine.flow import SampleConfig

TINY_LATENT, EMOJI_LATENT, SMALL_LATENT, PAPER_LATENT = (24, 8, 8), (32, 8, 8), (32, 16, 16), (4, 32, 32)
COCO_TRAIN = 113_287  # pictures of Karpathy's train and restval
TINY_FIT = replace(MINUTES_ON_A_CPU, steps=1_300, warmup_steps=50, ema_decay=0.99)


def autoencoder(
    latent: tuple[int, int, int], patch: int, max_tokens: int, width: int, vocabulary: int, kl_weight: float,
    depth: int = 1, decoder_kind: str = "parallel",
) -> CaptionAutoencoderConfig:  # fmt: skip
    """Queries write `patch` x `patch` squares of the latent; as many positions as tokens, but <bos>, read them."""
    size = {
        "latent": latent, "patch": patch, "width": width, "heads": max(2, width // 64), "mlp_hidden": 2 * width,
    }  # fmt: skip
    encoder = TextVEConfig(
        token_width=width, max_tokens=max_tokens, depth=depth, conv_depth=2, mean_std=1.0, **size
    )
    decoder = CaptionDecoderConfig(vocabulary=vocabulary, max_tokens=max_tokens - 1, depth=depth + 1, **size)
    return CaptionAutoencoderConfig(encoder, decoder, decoder_kind, kl_weight=kl_weight)


def tiny_text() -> Recipe[TextConfig]:
    """Word after word, and blends of two captions read as one of them: three times fewer that are no sentences."""
    parts = autoencoder(
        TINY_LATENT, 2, 40, width=128, vocabulary=64, kl_weight=6e-5, decoder_kind="autoregressive"
    )
    config = TextConfig(parts, mixed=0.5)
    return Recipe("captions of captioned shapes, word by word", config, TINY_FIT, data="shapes")


def tiny() -> Recipe[CaptionConfig]:
    """The source is learned: a convolutional encoder reads the picture, and L_Enc ties it to what is said of it.

    Its lowest level is 2 x 2: an encoder that sees the whole picture learns sooner which colour is whose. (Trained
    alone to regress x_1, 600 steps: 46 % of captions of two objects right, 14 % with levels down to 4 x 4; one seed.)
    L_mean, which the paper does not have, teaches that encoder directly: it sees after 600 steps what the flow alone
    had taught it after 2,700. In the last quarter words teach it too (L_see), and the decoder learns to read what the
    flow writes (L_read).
    """
    model = CaptionConfig(
        image_size=32,
        codec=CodecConfig("patch-dct", patch=4, keep=24, whitening=0.75),
        image_ve=ImageVEConfig(
            TINY_LATENT, TINY_LATENT, widths=(64, 96, 128), mean_std=0.7, sigma=0.1, decoder=False
        ),
        backbone=_small_dimr(TINY_LATENT, width=192, blocks=5, patch=2),
        sigma=0.3,
        loss=LossConfig(
            kl_weight=3e-5, encoder_weight=0.3, mean_weight=2.0, decoder_weight=1.0, see_weight=1.0,
            decoder_from=0.75, decoder_steps=4, times="early",
        ),
        # a tenth of the noise: fewer captions that are no sentences, and one in ten pictures gets another at each draw
        sample=SampleConfig(scale=1.0, steps=20, solver="euler", temperature=0.1),
    )  # fmt: skip
    fit = replace(TINY_FIT, steps=2_000, ema_decay=0.995)
    return Recipe("captioned shapes at 32 px, small enough for a CPU", model, fit, data="shapes")


def emoji_text() -> Recipe[TextConfig]:
    config = TextConfig(
        autoencoder(EMOJI_LATENT, 2, 40, width=192, vocabulary=1_024, kl_weight=3e-5),
        tokens="bpe",
        replaced=0.2,
    )
    return Recipe("captions of the bundled emoji in subwords", config, TINY_FIT, data="emoji")


def emoji() -> Recipe[CaptionConfig]:
    model = replace(
        tiny().model,
        image_size=64,
        codec=CodecConfig("taef2"),
        image_ve=ImageVEConfig(
            EMOJI_LATENT, EMOJI_LATENT, widths=(64, 96), mean_std=0.7, sigma=0.1, decoder=False
        ),
        backbone=_small_dimr(EMOJI_LATENT, width=192, blocks=5, patch=2),
        loss=LossConfig(kl_weight=1e-4, encoder_weight=0.3, times="early"),
        sample=replace(tiny().model.sample, temperature=0.5),
    )
    return Recipe(
        "bundled emoji at 64 px through TAEF2", model, replace(tiny().fit, steps=2_000), data="emoji"
    )


def small_text() -> Recipe[TextConfig]:
    config = TextConfig(
        autoencoder(SMALL_LATENT, 4, 40, width=256, vocabulary=4_096, kl_weight=3e-5, depth=2),
        tokens="bpe",
        replaced=0.1,
    )
    fit = replace(TINY_FIT, steps=20_000, batch_size=256, lr=1e-3, warmup_steps=500, ema_decay=0.999)
    return Recipe("captions of COCO in subwords; a GPU and your own copy of COCO", config, fit)


def small() -> Recipe[CaptionConfig]:
    """COCO at 128 px through the bundled TAEF2, about 50M parameters: an hour or so of one GPU."""
    model = CaptionConfig(
        image_size=128,
        codec=CodecConfig("taef2"),
        image_ve=ImageVEConfig(
            SMALL_LATENT, SMALL_LATENT, widths=(128, 192, 256), mean_std=0.7, sigma=0.4, decoder=False
        ),
        backbone=DiMRConfig(32, (16, 16), (StageConfig("transformer", 512, 15, 1, 8),), init="scaled"),
        loss=LossConfig(kl_weight=5e-5, encoder_weight=0.3, times="early"),
        sample=SampleConfig(scale=1.5, steps=25, solver="euler"),
    )
    fit = replace(
        TINY_FIT, steps=20 * COCO_TRAIN // 256, batch_size=256, lr=5e-4, warmup_steps=1_000, ema_decay=0.999
    )
    return Recipe("COCO at 128 px in Karpathy's split; a GPU and your own copy of COCO", model, fit)


def paper_text() -> Recipe[TextConfig]:
    """CrossFlow app. B.4 names a text encoder and a decoder of stacked transformer blocks, no sizes: these are ours."""
    config = TextConfig(
        autoencoder(PAPER_LATENT, 8, 48, width=512, vocabulary=8_192, kl_weight=3e-5, depth=4),
        tokens="bpe",
        replaced=0.1,
    )
    fit = replace(_paper_fit(), steps=_epochs(20), lr=5e-4, warmup_steps=_epochs(1))
    return Recipe("captions of COCO in subwords; a GPU and your own copy of COCO", config, fit)


def paper() -> Recipe[CaptionConfig]:
    """CrossFlow sec. 5.2: 351M, 4 x 32 x 32 latents of Stable Diffusion's VAE, batch 256, lr 2e-4, 100 epochs.

    The source is a draw of the VAE's own posterior, without further noise. Solver and guidance are not stated.
    """
    model = CaptionConfig(
        image_size=256,
        codec=CodecConfig("sd-vae"),
        backbone=rung(832, 37, 13, (2, 1), 13),  # 350.96M
        sigma=0.0,
        loss=LossConfig(times="uniform"),
        sample=SampleConfig(scale=2.0, steps=50, solver="euler"),
    )
    fit = replace(_paper_fit(), steps=_epochs(100), lr=2e-4, warmup_steps=_epochs(5))
    return Recipe("the paper's recipe on COCO; needs a GPU or several, and your own copy of COCO", model, fit)


def _paper_fit() -> FitConfig:
    """Betas, weight decay and EMA are those of the text-to-image model (app. A)."""
    return FitConfig(
        steps=1, batch_size=256, betas=(0.9, 0.9), weight_decay=0.03, ema_decay=0.9999, precision="auto", log_every=50,
        save_every=5_000,
    )  # fmt: skip


def _epochs(count: int) -> int:
    """Steps of so many passes over COCO's training pictures at batch 256."""
    return round(count * COCO_TRAIN / 256)


def _small_dimr(latent: tuple[int, int, int], width: int, blocks: int, patch: int) -> DiMRConfig:
    """One transformer stage: a caption's latent has no fine detail that a convolutional stage would draw."""
    channels, *size = latent
    stage = StageConfig("transformer", width, blocks, patch, width // 32)
    return DiMRConfig(
        channels, (size[0], size[1]), (stage,), activation="silu", attention="matmul", init="scaled"
    )


TEXT_PRESETS: dict[str, Callable[[], Recipe[TextConfig]]] = {
    "tiny": tiny_text,
    "emoji": emoji_text,
    "small": small_text,
    "paper": paper_text,
}
PRESETS: dict[str, Callable[[], Recipe[CaptionConfig]]] = {
    "tiny": tiny,
    "emoji": emoji,
    "small": small,
    "paper": paper,
}
