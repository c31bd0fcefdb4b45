"""`evaluate.Metric` without files: what is added is scored or turned to features at once, and kept in memory.

evaluate's own metrics write what is added to files in the user's cache and lock them, which clashes where several
processes share a disk.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, no_type_check

from cf_eval.result import Result

try:
    import evaluate
    from datasets import Features as Columns
    from datasets import Image, List, Value
except ImportError as error:
    raise ImportError(f'metrics for evaluate need it: pip install "cf-eval[evaluate]" ({error})') from error

__all__ = [
    "Image",
    "InMemoryMetric",
    "List",
    "Value",
]  # the types of columns, with the error above if they are missing

PICTURES = {"predictions": Image(), "references": Image()}


class InMemoryMetric(evaluate.Metric):
    """What all of them share. Arguments and options are those of the metric of cf_eval that does the work.

    Whatever that metric's add_batch takes besides predictions and references (ids, masks), add_batch takes by name.
    """

    about: ClassVar[str]
    columns: ClassVar[Mapping[str, Any]] = PICTURES

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self._metric = new()
        self._added = 0
        self.result: Result | None = None
        super().__init__(keep_in_memory=True)

    @abstractmethod
    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        """Add to self._metric."""

    # evaluate copies these three and adds to their docstrings; the wrapper of a type checker has none to add to
    @no_type_check
    def add_batch(self, *, predictions: Any = None, references: Any = None, **more: Any) -> None:
        """Add a batch; it is scored or turned to features now, and not kept. Errors are those of the metric."""
        self._feed(predictions, references, **more)
        self._added += len(references if predictions is None else predictions)

    @no_type_check
    def add(self, *, prediction: Any = None, reference: Any = None, **more: Any) -> None:
        """Add one prediction and its reference."""
        one = {"predictions": prediction, "references": reference}
        self.add_batch(**{name: [value] for name, value in {**one, **more}.items() if value is not None})

    @no_type_check
    def compute(self, *, predictions: Any = None, references: Any = None, **more: Any) -> dict[str, Any]:
        """Add what is given, compute over all that was added, and start afresh."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references, **more)
        self.result = self._computed()
        self._metric, self._added = self._new(), 0
        return {**self.result.values, "protocol": self.result.protocol, "count": self.result.count}

    def __len__(self) -> int:
        return self._added

    def _computed(self) -> Result:
        return self._metric.gathered().compute()

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(description=self.about, citation="", features=Columns(self.columns))

    def _build_data_dir(self) -> str:
        return ""  # evaluate would make a folder in the cache here

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        return self.compute(**inputs)
