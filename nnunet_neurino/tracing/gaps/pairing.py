"""Which ends belong together where several could: pairs that are best as a whole, not one by one."""

from __future__ import annotations

from collections.abc import Mapping

_ROUNDS = 20
_ONE_MORE = 1.0  # of merit that two pairs in place of one may cost


def best_pairs(merit: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Pair ends up so that each is used once and the merit of all pairs is as great as exchanging partners makes it.

    Where two neurites are cut at the same place, the best of all pairs may be an end of each: what is left for the
    other two ends tells.

    Args:
        merit: of each possible pair (smaller number first); above or below 0.

    Returns:
        The pairs, best first.
    """
    possible: dict[int, dict[int, float]] = {}
    for (a, b), value in merit.items():
        possible.setdefault(a, {})[b] = value
        possible.setdefault(b, {})[a] = value
    partner: dict[int, int] = {}
    for a, b in sorted(merit, key=lambda pair: -merit[pair]):
        if a not in partner and b not in partner:
            partner[a], partner[b] = b, a
    for _ in range(_ROUNDS):
        changed = [_exchange(a, possible, partner) for a in list(partner) if a in partner]
        if not any(changed):
            break
    pairs = [(a, b) for a, b in partner.items() if a < b]
    return sorted(pairs, key=lambda pair: -merit[pair])


def _exchange(a: int, possible: dict[int, dict[int, float]], partner: dict[int, int]) -> bool:
    """Give ``a`` and its partner new partners if that is better for all who change."""
    b = partner[a]
    now = possible[a][b]
    best, change = 0.0, None
    for c, with_a in possible[a].items():
        if c == b:
            continue
        d = partner.get(c)
        if d is not None and d in possible[b]:
            gain = with_a + possible[b][d] - now - possible[c][d]
            if gain > best + 1e-9:
                best, change = gain, (c, d)
        elif d is None:
            for e, with_b in possible[b].items():
                gain = with_a + with_b + _ONE_MORE - now
                if e not in partner and e != c and gain > best + 1e-9:
                    best, change = gain, (c, e)
    if change is None:
        return False
    c, d = change
    partner[a], partner[c], partner[b], partner[d] = c, a, d, b
    return True
