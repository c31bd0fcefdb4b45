"""In which order text encoder and flow are trained (CrossFlow section 5.2, Table 3e): functions of a run's progress.

Every strategy has the budget of one run, and its one schedule of the learning rate.
"""

from typing import Literal

import torch
from torch import Tensor

Stage = Literal["encoder", "flow", "joint"]

STRATEGIES: dict[str, tuple[Stage, Stage]] = {
    # name              the first encoder_share of the run, and the rest
    "joint":            ("joint", "joint"),  # the paper's choice, for its simplicity
    "two-stage":        ("encoder", "flow"),  # the encoder is frozen when the flow begins
    "two-stage-joint":  ("encoder", "joint"),  # it goes on learning with the flow
}  # fmt: skip


def stage_at(strategy: str, encoder_share: float, progress: float) -> Stage:
    """What is trained when a share `progress` of the run, in [0, 1], is done.

    encoder: the text encoder with its own losses, no flow. flow: L_FM alone, the encoder frozen. joint: everything.
    """
    first, rest = STRATEGIES[strategy]
    return first if progress < encoder_share else rest


def stage_shares(strategy: str, stage: Stage) -> dict[str, Tensor]:
    """For the log: 1 for the stage of this step, 0 for the strategy's other one; nothing where there is only one.

    The mean over a line of the log is the share of its steps that were of that stage.
    """
    stages = dict.fromkeys(STRATEGIES[strategy])
    if len(stages) == 1:
        return {}
    return {f"stage_{name}": torch.tensor(float(name == stage)) for name in stages}
