"""All figures of the page, in its order."""

from functools import partial

from cf.figures import latent, others, scaling
from cf.figures.figure import Figure
from cf.figures.strips import guidance_strip, strip, sweep

SAME = "Rows are models, columns are held-out captions; all rows have the same draw of the noise."
FIGURES = (
    Figure(
        "table1",
        "Table 1: CrossFlow beside the cross-attention baseline",
        f"{SAME} Each model is guided at the scale that its search on val chose.",
        "CrossFlow has a slightly better FID than flow matching from noise with cross-attention, at equal data, size "
        "and steps, and the same CLIP score.",
        partial(strip, table="table1"),
        "table1",
        ("cf_table1", "fid", "FID"),
    ),
    Figure(
        "table3a",
        "Table 3a: the source as a point, with fixed noise, as a learned distribution",
        f"{SAME} No guidance.",
        "Noise on the source helps, and a learned distribution helps much more.",
        partial(strip, table="table3a"),
        "table3a",
        ("cf_table3a", "fid", "FID"),
    ),
    Figure(
        "table3b",
        "Table 3b: what trains the text encoder besides the flow",
        f"{SAME} No guidance.",
        "A contrast does better than reconstructing the words, a contrast with the image better than with the text.",
        partial(strip, table="table3b"),
        "table3b",
        ("cf_table3b", "fid", "FID"),
    ),
    Figure(
        "table3c",
        "Table 3c: no guidance, autoguidance, the indicator",
        f"{SAME} One model; both guidances at scale 2, autoguidance away from its earliest checkpoint.",
        "Both guidances help, the indicator more than autoguidance.",
        guidance_strip,
        "table3c",
        ("cf_table3c", "fid", "FID"),
    ),
    Figure(
        "table3d",
        "Table 3d: the language model",
        f"{SAME} Each model is guided at the scale that its search on val chose. The paper's language models are not "
        "here.",
        "A better language model gives better pictures.",
        partial(strip, table="table3d"),
        "table3d",
        ("cf_table3d", "fid", "FID"),
    ),
    Figure(
        "table3e",
        "Table 3e: text encoder and flow trained apart, together, or both",
        f"{SAME} Each model is guided at the scale that its search on val chose.",
        "The encoder has to be trained along with the flow; a first stage before that helps a little.",
        partial(strip, table="table3e"),
        "table3e",
        ("cf_table3e", "fid", "FID"),
    ),
    Figure(
        "fig3_pictures",
        "Fig. 3: size and training budget, in pictures",
        "Two captions at every size (rows) and every budget (columns), without guidance. CrossFlow above, the "
        "baseline below.",
        "CrossFlow gains more from size and from training than the baseline.",
        scaling.pictures,
        "fig3",
    ),
    Figure(
        "fig3_curves",
        "Fig. 3: size and training budget, in numbers",
        "How well captions are followed, over parameters (left) and over training steps (right); the paper plots FID.",
        "The smallest CrossFlow is behind the baseline, larger ones are ahead; it needs more steps and ends better.",
        scaling.curves,
        "fig3",
    ),
    Figure(
        "fig4",
        "Fig. 4: walks between two captions",
        "Nine pictures on the straight line between the latents of two captions, which stand under its ends.",
        "Linear interpolation between two text latents gives visually smooth changes, even between disparate prompts.",
        latent.walks,
        "fig4",
    ),
    Figure(
        "fig5",
        "Fig. 5: sums of captions",
        "Each row is a sum of text latents: its terms drawn on their own, and last the picture of the sum.",
        "Adding and subtracting text latents changes the picture accordingly.",
        latent.sums,
        "fig5",
    ),
    Figure(
        "fig8_indicator",
        "Fig. 8: scales of the indicator",
        "Captions in rows, scales in columns: 0 is the model with its indicator off, 1 is no guidance.",
        "With the indicator off the model draws without the caption; guidance by it improves the pictures clearly.",
        partial(sweep, kind="indicator"),
        "fig8",
    ),
    Figure(
        "fig8_autoguidance",
        "Fig. 8: scales of autoguidance",
        "The same captions and noise: 0 is the weak model alone, the earliest checkpoint of the same training, 1 is no "
        "guidance.",
        "At an equal scale the indicator gives better pictures than autoguidance.",
        partial(sweep, kind="autoguidance"),
        "fig8",
    ),
    Figure(
        "table4",
        "Table 4: captions of pictures",
        "Held-out pictures, each with the caption that was drawn for it.",
        "The same flow, from image to text, is on a par with non-autoregressive captioners.",
        others.captions,
        "table4",
        ("cf_table4", "cider", "CIDEr on COCO"),
    ),
    Figure(
        "table5",
        "Table 5: depth",
        "Held-out pictures; the mean of the source x_0, the depth that the flow makes of it, the truth, the error.",
        "The same flow, from image to depth, is on a par with depth networks of its time.",
        others.depth,
        "table5",
        ("cf_table5", "kitti_absrel", "AbsRel on KITTI"),
    ),
    Figure(
        "table6",
        "Table 6: pictures made larger",
        "Held-out pictures: small, enlarged by bicubic, by three networks of one size and budget, and the true one.",
        "CrossFlow has the best FID and a better PSNR than flow matching from noise; regression has the best PSNR.",
        others.larger,
        "table6",
        ("cf_table6", "fid", "FID"),
    ),
)  # fmt: skip
