"""Measures a filter: python bench.py CONTAINS.core.wasm. Prints the median ns a row of making a batch and filtering it."""

import sys
import time

from millstream_stage import Batch, Filter

ROWS = 1000


def values():
    """Returns 104 bytes a row; every tenth holds the text."""
    rows = []
    for row in range(ROWS):
        key = f"{row * 0x9E3779B97F4A7C15 & (1 << 64) - 1:016x}"
        text = f'{{"id":{row},"name":"'
        text += (key * 8)[: 102 - len(text)]
        if row % 10 == 3:
            text = text[:50] + "error" + text[55:]
        rows.append((text + '"}').encode())
    return rows


def median(work, seconds=1.0):
    """Returns the median time of a call in ns a row."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - begun)
    return sorted(times)[len(times) // 2] / ROWS


def main():
    rows = values()
    for what, deadline in (("", None), (" with a deadline", 1.0)):
        stage = Filter(sys.argv[1], {"text": "error"}, deadline=deadline)
        keep = stage.keep("bench", Batch(values=rows))
        assert [row for row in range(ROWS) if keep[row]] == list(range(3, ROWS, 10))
        print(f"batch and call{what}: {median(lambda: stage.filter('bench', Batch(values=rows))):.1f} ns a row")
    stage = Filter(sys.argv[1], {"text": "error"})
    median(lambda: stage.filter("bench", Batch(values=rows)), 0.2)
    print(f"one record a call: {median(lambda: stage.filter('bench', Batch(values=rows[:1]))) * ROWS:.0f} ns a call")


if __name__ == "__main__":
    main()
