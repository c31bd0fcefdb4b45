"""CrossFlow, Table 3d: the language model that reads the captions; guidance searched on val.

uv run python benchmarks/papers/cf_table3d.py --scale tiny
"""

from cf.claims import better, needs
from cf.command import main
from cf.numbers import COMPOSITION, FRECHET, SCALE
from cf.spec import Row, Table, Training

WORDS, MINILM = "word vectors, trained along", "MiniLM (22M), frozen"
TABLE = Table(
    key="cf_table3d",
    rows=(
        Row(WORDS, Training("t2i"), "guided", "indicator"),
        Row(MINILM, Training("t2i-minilm"), "guided", "indicator"),
    ),
    numbers=(FRECHET, COMPOSITION, SCALE),
    claims=(
        better("a better language model gives better pictures (FID)", MINILM, WORDS, "frechet", higher=False),
        better("a better language model gives better pictures (CLIP score)", MINILM, WORDS, "composition"),
        needs(
            "T5-XXL and Llama3 are better than CLIP",
            "needs their weights: ablation-70m, ablation-70m-t5 and ablation-70m-llama of `crossflow t2i train`",
        ),
    ),
    says="The paper's three need weights that are not here. In their place: vectors of the 40 words that occur, learned "
    "with the model, and MiniLM, which knows English. Such captions need no more than the words.",
    paper_needs="CLIP, T5-XXL, Llama3, COCO, Inception weights",
)


if __name__ == "__main__":
    main(TABLE)
