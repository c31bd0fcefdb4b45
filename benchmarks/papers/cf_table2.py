"""CrossFlow, Table 2 and 7: GenEval, task by task, of one model with its best scale of guidance.

uv run python benchmarks/papers/cf_table2.py --scale tiny
"""

from cf.claims import needs
from cf.command import main
from cf.measures.judged import quality
from cf.measures.numbers import COMPOSITION, SCALE, TASKS
from cf.scale import Scale
from cf.spec import Row, Table, Training

OURS = "CrossFlow"


SAYS = {
    "tiny": "GenEval's six tasks on captions of shapes, read back by rule.",
    "small": "GenEval's six tasks are asked of captioned shapes, at scale tiny, or of photographs with --detector, at "
    "scale paper.",
}


def table(scale: Scale) -> Table:
    """The paper's model where the scale has it; GenEval itself with a detector."""
    measure = "guided" if scale.by_rule or scale.judges.detector is None else "geneval"
    looks = [number for number in quality(scale) if number != COMPOSITION]  # it is the first of the tasks
    return Table(
        key="cf_table7",
        title="Table 2 and 7: GenEval per task",
        rows=(Row(OURS, Training(scale.best), measure, "indicator"),),
        numbers=(*TASKS, *looks, SCALE),
        claims=(
            needs(
                "CrossFlow is on a par with text-to-image models of its time (0.55 overall, FID-30K 9.63)",
                "the other models are the paper's; only their benchmark, by real weights, can say",
            ),
        ),
        says=SAYS.get(scale.name, ""),
        paper_needs="GenEval's detector, COCO, Inception weights",
    )


if __name__ == "__main__":
    main(table)
