"""A job on a cluster that loses nodes, simulated with the very code that shares the work.

    python examples/study/cluster.py [--images 1000000] [--ranks 64] [--rate 10] [--failing 0.01]

Eight ranks a node; two nodes are lost on the way, unseen by the others, and nobody restarts them.
Time is simulated; the shares, the journals' states and the patience are those of the package.
"""

from __future__ import annotations

import argparse
import heapq
import random
import types
from collections import Counter, deque

from simgan_aug.coco import CocoImage
from simgan_aug.dataset import ranks
from simgan_aug.dataset.journal import DONE, FAILED, TODO
from simgan_aug.dataset.pool import HELD, LATER
from simgan_aug.dataset.ranks import Rank, share

NODE = 8


class Shared:
    """All that the journals say, known to everyone at once."""

    def __init__(self, count: int) -> None:
        self.state = bytearray(count)
        self.claims: Counter[int] = Counter()

    def refresh(self) -> None:
        """Nothing: it is known."""


class Simulated:
    """One rank: it asks for images, keeps a few in hand, and is now and then slow."""

    def __init__(self, number: int, images: list[CocoImage], shared: Shared, options) -> None:
        self.items = share(images, shared, Rank(number, options.ranks), set())
        self.hand: deque[int] = deque()
        self.shared = shared
        self.dead = self.ended = False

    def fill(self) -> None:
        """Take images until the hands are full."""
        while len(self.hand) < HELD + 2 and not self.ended:
            item = next(self.items, self)
            self.ended = item is self
            if item is None or item is self:
                return
            self.hand.append(item.number)
            self.shared.claims[item.number] += 1


def main() -> None:
    """Run one simulated job and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--rate", type=float, default=10.0, help="images a second, each rank")
    parser.add_argument("--failing", type=float, default=0.01)
    options = parser.parse_args()
    draw = random.Random(0)
    now = 0.0
    ranks.time = types.SimpleNamespace(monotonic=lambda: now)
    images = [CocoImage(number, str(number)) for number in range(options.images)]
    shared = Shared(options.images)
    workers = [Simulated(n, images, shared, options) for n in range(options.ranks)]
    ideal = options.images / options.ranks / options.rate
    losses = [(ideal * 0.3, 1), (ideal * 0.6, 3)]
    begun = again = lost = 0
    heap = [(draw.random(), number) for number in range(options.ranks)]
    heapq.heapify(heap)
    while heap:
        now, number = heapq.heappop(heap)
        while losses and now >= losses[0][0]:
            _, node = losses.pop(0)
            for dead in workers[node * NODE : node * NODE + NODE]:
                lost += len(dead.hand)
                dead.dead = True
        worker = workers[number]
        if worker.dead:
            continue
        if worker.hand:
            done = worker.hand.popleft()
            begun += 1
            again += shared.state[done] != TODO
            shared.state[done] = FAILED if draw.random() < options.failing else DONE
        worker.fill()
        if worker.hand:
            heapq.heappush(heap, (now + draw.uniform(0.5, 1.5) / options.rate, number))
        elif not worker.ended:
            heapq.heappush(heap, (now + LATER, number))
    alive = options.ranks - 2 * NODE
    least = (options.images - options.rate * (ideal * 0.9) * NODE) / alive / options.rate
    print(f"{options.images:,} images, {options.ranks} ranks of {options.rate} images/s")
    print(f"left undone: {shared.state.count(TODO)}; set aside: {shared.state.count(FAILED):,}")
    print(f"in the hands of the lost ranks: {lost}; refined twice: {again} of {begun:,}")
    print(f"took {now:,.0f} s; {ideal:,.0f} s without losses, {least:,.0f} s at best with them")


if __name__ == "__main__":
    main()
