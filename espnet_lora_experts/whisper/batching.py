"""How a list of clips is cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def batches(
    lengths: Sequence[int], fits: Callable[[int, int], bool], overhead: float = 0.0
) -> list[list[int]]:
    """Cuts clips, longest first, where padding and batches cost least together.

    Args:
        lengths: Of each clip, in any unit, what follows it included.
        fits: Whether a batch may have so many clips, the longest of such a length;
            a clip by itself always may.
        overhead: What a batch costs by itself, as a length.

    Returns:
        Indices of each batch; every clip is in one.

    Example:
        >>> batches([3, 10, 3, 9], lambda count, longest: count * longest <= 20, 1)
        [[1, 3], [0, 2]]
        >>> batches([3, 10, 3, 9], lambda count, longest: True, overhead=50)
        [[1, 3, 0, 2]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    cost, begin = [0.0], [0]  # of the best cut of the clips before each place
    for end in range(1, len(order) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            count, longest = end - start, lengths[order[start]]
            if options and not fits(count, longest):
                break
            options.append((cost[start] + count * longest + overhead, start))
        best = min(options)
        cost.append(best[0])
        begin.append(best[1])
    cuts, end = [], len(order)
    while end:
        cuts.append(order[begin[end] : end])
        end = begin[end]
    return cuts[::-1]
