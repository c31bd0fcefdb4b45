"""The columns of our tables, and which of the paper's each stands for."""

from cf.spec import Number

COMPOSITION = Number("composition", "composition accuracy", "clip")
FRECHET = Number("frechet", "Fréchet distance of mean colours", "fid", "{:.4f}", higher_is_better=False)
PARAMETERS = Number("parameters", "parameters", "params_b", "{:,.0f}", higher_is_better=None)
SCALE = Number("scale", "guidance scale", None, "{:.3g}", higher_is_better=None)
TASKS = tuple(
    Number(name, name.replace("_", " "), printed)
    for name, printed in (
        ("composition", "overall"),
        ("single_object", "single_object"),
        ("two_objects", "two_object"),
        ("counting", "counting"),
        ("colours", "colors"),
        ("position", "position"),
        ("attribute_binding", "attribute_binding"),
    )
)
CAPTIONS = (
    Number("cider_d", "CIDEr-D", "cider"),
    Number("bleu_4", "BLEU-4", "bleu4"),
    Number("rouge_l", "ROUGE-L", "rouge_l"),
    Number("grammatical", "grammatical"),
    Number("true", "wholly true"),
)
DEPTH = (
    Number("abs_rel", "AbsRel", "kitti_absrel", higher_is_better=False),
    Number("delta_1", "δ1", "kitti_d1"),
)
LARGER = (
    Number(
        "frechet_distance_of_sharpness",
        "Fréchet distance of sharpness",
        "fid",
        "{:.4f}",
        higher_is_better=False,
    ),
    Number("psnr", "PSNR", "psnr", "{:.2f}"),
    Number("ssim", "SSIM", "ssim"),
)
