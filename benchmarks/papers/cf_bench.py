"""All of CrossFlow's tables and figures, one after the other; a second start goes on where the first one stopped.

uv run python benchmarks/papers/cf_bench.py --scale tiny --jobs 2
"""

from cf.command import main_all
from cf.every import every

if __name__ == "__main__":
    main_all(every)
