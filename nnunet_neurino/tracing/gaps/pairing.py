"""Which ends belong together where several could: pairs that are best as a whole, not one by one."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx


def best_pairs(merit: Mapping[tuple[int, int], float], least: float) -> list[tuple[int, int]]:
    """Pair ends up, each at most once, so that what the pairs are better than ``least`` is greatest in all.

    Where two neurites are cut at the same place, the best of all pairs may be an end of each: what is left for the
    other two ends tells.

    Args:
        merit: of each possible pair (smaller number first); above or below 0.
        least: merit of a pair that is as good as none.

    Returns:
        The pairs, best first.
    """
    graph = nx.Graph()
    graph.add_weighted_edges_from((*pair, value - least) for pair, value in merit.items())
    pairs = [
        (min(pair), max(pair))
        for ends in nx.connected_components(graph)  # the matching takes the cube of their number
        for pair in nx.max_weight_matching(graph.subgraph(ends))
    ]
    return sorted(pairs, key=lambda pair: (-merit[pair], pair))
