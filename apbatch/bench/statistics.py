"""What the samples say: medians with their spread, ratios, and only such conclusions as the samples carry."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apbatch.bench.case import Operation
from apbatch.bench.samples import Sample, SampleRun

#: With fewer samples than this no order of peers is stated.
FEWEST_FOR_A_STATEMENT = 5
#: Chance with which the true median of ratios lies between the two that are given with it.
COVERED = 0.9


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times the figure of another peer: the median over rounds of the ratio within a round.

    Peers take turns, so what slows a machine for a minute slows both parts of such a ratio.

    Attributes
    ----------
    median : float
    low, high : float
        The true median lies between them with a chance of 90 %, whatever the distribution (order statistics); with
        fewer than five rounds they are the lowest and the highest ratio, and the chance is smaller.
    rounds : int
        Rounds in which both were measured.
    """

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Figure:
    """The samples of one peer in one operation.

    Attributes
    ----------
    rounds : dict of int to float
        The figure of each round that did not fail, in the order measured.
    low, median, high : float
        Lowest, median and highest.
    cpu_share : float
        Median of this process' CPU time over wall-clock time.
    ratio : Ratio, optional
        Figure over that of the reference: the physical limit, or else the best peer.
    gain : Ratio, optional
        How many times better than the baseline; none without a baseline.
    """

    peer: str
    rounds: dict[int, float]
    low: float
    median: float
    high: float
    cpu_share: float
    ratio: Ratio | None = None
    gain: Ratio | None = None

    @property
    def values(self) -> list[float]:
        """Every figure, in the order measured."""
        return list(self.rounds.values())


@dataclass(frozen=True)
class Result:
    """One operation: its peers, the best first, and what failed."""

    operation: Operation
    reference: str | None
    figures: list[Figure]
    failures: dict[str, str]
    statement: str

    @property
    def ratios_to(self) -> str | None:
        """The peer to show ratios to; none where only a baseline is given, which has a column of its own."""
        has_own = self.operation.baseline or self.operation.baselines
        return None if self.operation.reference is None and has_own else self.reference


def results(run: SampleRun) -> list[Result]:
    """Return the result of each operation of a run."""
    return [_result(run, operation) for operation in run.operations]


def _result(run: SampleRun, operation: Operation) -> Result:
    by_peer: dict[str, list[Sample]] = {}
    for sample in run.of(operation):
        by_peer.setdefault(sample.peer, []).append(sample)
    rounds = {
        peer: {one.round: one.figure for one in samples if one.figure is not None} for peer, samples in by_peer.items()
    }
    medians = {peer: statistics.median(figures.values()) for peer, figures in rounds.items()}
    best_first = sorted(medians, key=lambda peer: medians[peer], reverse=operation.higher_is_better)
    reference = operation.reference if operation.reference in medians else next(iter(best_first), None)
    limit = rounds[reference] if reference else {}
    figures = []
    for peer, samples in by_peer.items():
        base = rounds.get(operation.baseline_of(peer) or "", {})
        gain = ratio_of(rounds[peer], base) if operation.higher_is_better else ratio_of(base, rounds[peer])
        figures.append(_figure(peer, rounds[peer], samples, ratio_of(rounds[peer], limit), gain))
    figures.sort(key=lambda figure: figure.median, reverse=operation.higher_is_better)
    failures = {
        sample.peer: sample.error
        for sample in run.samples
        if (sample.suite, sample.operation) == (operation.suite, operation.name) and sample.error
    }
    return Result(operation, reference, figures, failures, statement(operation, figures))


def _figure(
    peer: str, rounds: dict[int, float], samples: Sequence[Sample], ratio: Ratio | None, gain: Ratio | None
) -> Figure:
    values = list(rounds.values())
    shares = [(sample.cpu_user_s + sample.cpu_system_s) / sample.seconds for sample in samples if sample.seconds > 0]
    share = statistics.median(shares) if shares else 0.0
    return Figure(peer, rounds, min(values), statistics.median(values), max(values), share, ratio, gain)


def ratio_of(above: Mapping[int, float], below: Mapping[int, float]) -> Ratio | None:
    """Return the ratio of the figures of two peers, each by round; None if they share no round."""
    ratios = sorted(above[number] / below[number] for number in above.keys() & below.keys() if below[number])
    if not ratios:
        return None
    outside, n = 0, len(ratios)  # so many on each side may be left out
    while 2 * sum(math.comb(n, k) for k in range(outside + 2)) <= (1 - COVERED) * 2**n:
        outside += 1
    return Ratio(statistics.median(ratios), ratios[outside], ratios[-1 - outside], n)


def statement(operation: Operation, figures: Sequence[Figure]) -> str:
    """Say who is ahead, as far as the samples carry it.

    Peers are compared without the physical limit. Two peers are told apart only if all samples of one lie beyond
    all samples of the other: with 5 samples each and no real difference that happens by chance once in 126 times.
    """
    peers = [figure for figure in figures if figure.peer != operation.reference]
    if len(peers) < 2:
        limits = [figure.peer for figure in figures if figure.peer == operation.reference]
        beside = f", beside the limit ({limits[0]})" if peers and limits else ""
        return f"No order is stated: {'one peer' if peers else 'no peer'} was measured{beside}."
    if min(len(figure.values) for figure in peers) < FEWEST_FOR_A_STATEMENT:
        return f"Fewer than {FEWEST_FOR_A_STATEMENT} samples of a peer: no order is stated."
    levels = _levels(operation, peers)
    parts = []
    for level, following in zip(levels, [*levels[1:], []], strict=True):
        who, several = _list([figure.peer for figure in level]), len(level) > 1
        ahead = f"{_times(operation, level[0], following[0])} times ahead of {following[0].peer}" if following else ""
        if several:
            parts.append(f"{who} are not told apart{f' and {ahead}' if ahead else ''}")
        elif ahead:
            parts.append(f"{who} is {ahead}")
    return f"{'; '.join(parts)}."


def _levels(operation: Operation, ordered: Sequence[Figure]) -> list[list[Figure]]:
    """Split peers, the best first, where all samples on one side are beyond all on the other."""
    levels = [[ordered[0]]]
    for figure in ordered[1:]:
        above = [other for level in levels for other in level]
        if all(_beyond(other, figure, operation.higher_is_better) for other in above):
            levels.append([figure])
        else:
            levels[-1].append(figure)
    return levels


def _times(operation: Operation, better: Figure, worse: Figure) -> str:
    above, below = (better, worse) if operation.higher_is_better else (worse, better)
    within = ratio_of(above.rounds, below.rounds)
    return three_digits(within.median if within else above.median / below.median)


def three_digits(value: float) -> str:
    """Return a figure with three significant digits: no more are known."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", "\u2009")
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def advice(measurements: Sequence[Result], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Say for pairs of peers how often one was ahead, and which to prefer if the samples agree."""
    sentences = []
    for one, other in pairs:
        ahead: dict[str, list[str]] = {one: [], other: []}
        level: list[str] = []
        for result in measurements:
            figures = {figure.peer: figure for figure in result.figures if figure.peer in (one, other)}
            if len(figures) < 2 or min(len(figure.values) for figure in figures.values()) < FEWEST_FOR_A_STATEMENT:
                continue
            name, better = result.operation.name, result.operation.higher_is_better
            if _beyond(figures[one], figures[other], better):
                ahead[one].append(name)
            elif _beyond(figures[other], figures[one], better):
                ahead[other].append(name)
            else:
                level.append(name)
        if not (ahead[one] or ahead[other] or level):
            continue
        parts = [
            f"{peer} is ahead at {_list([f'“{name}”' for name in names])}" for peer, names in ahead.items() if names
        ]
        if level:
            parts.append(f"they are not told apart at {_list([f'“{name}”' for name in level])}")
        sentence = f"{one} and {other}: {'; '.join(parts)}."
        for peer, rival in ((one, other), (other, one)):
            if ahead[peer] and not ahead[rival]:
                sentence += f" For such work on one machine take {peer}."
        sentences.append(sentence)
    return sentences


def _beyond(first: Figure, other: Figure, higher_is_better: bool) -> bool:
    return first.low > other.high if higher_is_better else first.high < other.low


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
