"""CrossFlow, Table 3d: the language model that reads the captions; guidance searched on val.

uv run python benchmarks/papers/cf_table3d.py --scale tiny
"""

from cf.claims import better, needs, ordered
from cf.command import main
from cf.measures.judged import ALIGNMENT, FIDELITY, quality
from cf.measures.numbers import SCALE
from cf.scale import Scale
from cf.spec import Claim, Row, Table, Training

WORDS, MINILM = "word vectors, trained along", "MiniLM (22M), frozen"


PAPER = ("CLIP (0.4B)", "T5-XXL (11B)", "Llama3 (7B)")
NOT_HERE = "The paper's three need weights that are not here: --scale paper. In their place: vectors of"
SAYS = {
    "tiny": f"{NOT_HERE} the 40 words that occur, learned with the model, and MiniLM, which knows English. Such "
    "captions need no more than the words.",
    "small": f"{NOT_HERE} the words that occur, learned with the model, and MiniLM, which knows English.",
}


def claims(scale: Scale) -> tuple[Claim, ...]:
    """About the rows that the scale has."""
    if MINILM in scale.languages:
        return (
            better(
                "a better language model gives better pictures (FID)", MINILM, WORDS, FIDELITY, higher=False
            ),
            better("a better language model gives better pictures (CLIP score)", MINILM, WORDS, ALIGNMENT),
            needs(
                "T5-XXL and Llama3 are better than CLIP",
                "needs their weights: ablation-70m, ablation-70m-t5 and ablation-70m-llama of `crossflow t2i train`",
            ),
        )
    return (
        ordered("T5-XXL is better than CLIP, Llama3 than T5-XXL (FID)", PAPER, FIDELITY, higher=False),
        better("T5-XXL is better than CLIP (CLIP score)", PAPER[1], PAPER[0], ALIGNMENT),
    )


def table(scale: Scale) -> Table:
    return Table(
        key="cf_table3d",
        rows=tuple(
            Row(name, Training(recipe), "guided", "indicator") for name, recipe in scale.languages.items()
        ),
        numbers=(*quality(scale), SCALE),
        claims=claims(scale),
        says=SAYS.get(scale.name, ""),
        paper_needs="CLIP, T5-XXL, Llama3, COCO, Inception weights",
    )


if __name__ == "__main__":
    main(table)
