"""CrossFlow, Table 2 and 7: GenEval, task by task, of one model with its best scale of guidance.

uv run python benchmarks/papers/cf_table2.py --scale tiny
"""

from cf.claims import needs
from cf.command import main
from cf.numbers import FRECHET, SCALE, TASKS
from cf.spec import Row, Table, Training

OURS = "CrossFlow"
TABLE = Table(
    key="cf_table7",
    rows=(Row(OURS, Training("t2i"), "guided", "indicator"),),
    numbers=(*TASKS, FRECHET, SCALE),
    claims=(
        needs(
            "CrossFlow is on a par with text-to-image models of its time (0.55 overall, FID-30K 9.63)",
            "the other models are the paper's; only their benchmark, by real weights, can say",
        ),
    ),
    says="GenEval's six tasks on captions of shapes, read back by rule.",
    paper_needs="GenEval's detector, COCO, Inception weights",
)


if __name__ == "__main__":
    main(TABLE)
