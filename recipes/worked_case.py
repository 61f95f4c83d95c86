"""What a claim gives: "100 samples split 70/30, SGD 0.01, 100 steps: loss 0.1, accuracy 90 %".

    python recipes/worked_case.py

Draws two normal distributions whose best possible accuracy is known, trains a small network as
claimed, longer and faster, and says what came of it. Takes seconds and needs no data.
"""

import math
from collections.abc import Iterable
from statistics import NormalDist, mean, stdev

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

SAMPLES, TRAIN_SAMPLES, FEATURES, HIDDEN, NEIGHBOURS = 100, 70, 10, 32, 5
TEST_SAMPLES = SAMPLES - TRAIN_SAMPLES
SEEDS = range(10)
DIFFICULTIES = (0.80, 0.90, 0.99)  # best possible accuracy
RUNS = ((0.01, 100), (0.01, 1000), (0.1, 100), (1.0, 100))  # rate, full-batch steps; claim first
LOSS_LIMIT = 0.15  # "about 0.1": what rounds to it, or less
CLAIMED_ACCURACY = 0.9


def draw(samples: int, distance: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features (samples, FEATURES) with means ``distance`` apart in the first; labels 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (samples,), generator=generator)
    features = torch.randn(samples, FEATURES, generator=generator)
    features[:, 0] += distance * (labels - 0.5)
    return features, labels


def best_loss(distance: float) -> float:
    """Cross-entropy of the true probabilities, whose log-odds for the label are N(d²/2, d²)."""
    odds = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)) * distance
    return softplus(-(odds + distance**2 / 2)).mean().item()


def train(x: Tensor, y: Tensor, rate: float, steps: int, seed: int) -> tuple[float, float, float]:
    """Train on the first samples; training loss, training accuracy, accuracy on the others."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(network(x[:TRAIN_SAMPLES]), y[:TRAIN_SAMPLES]).backward()
        optimizer.step()
    with torch.no_grad():
        logits = network(x)
    loss = cross_entropy(logits[:TRAIN_SAMPLES], y[:TRAIN_SAMPLES])
    right = (logits.argmax(1) == y).double()  # in float32, 27 of 30 are less than 0.9
    return loss.item(), right[:TRAIN_SAMPLES].mean().item(), right[TRAIN_SAMPLES:].mean().item()


def untrained(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Test accuracy of the vote of the nearest training samples, and of their larger class."""
    nearest = torch.cdist(x[TRAIN_SAMPLES:], x[:TRAIN_SAMPLES]).topk(NEIGHBOURS, largest=False)
    vote = y[:TRAIN_SAMPLES][nearest.indices].mode(1).values
    larger = y[:TRAIN_SAMPLES].mode().values.expand_as(vote)
    right = (torch.stack([vote, larger]) == y[TRAIN_SAMPLES:]).double().mean(1)
    return right[0].item(), right[1].item()


def wilson_interval(right: int, samples: int) -> tuple[float, float]:
    """95 % interval of the true accuracy: each p within 1.96 of its own standard errors."""
    z = NormalDist().inv_cdf(0.975)
    half = z * math.sqrt(right * (samples - right) / samples + z**2 / 4)
    centre, divisor = right + z**2 / 2, samples + z**2
    return (centre - half) / divisor, (centre + half) / divisor


def spread(values: Iterable[float], scale: int = 100, digits: int = 1) -> str:
    scaled = [scale * value for value in values]
    return f"{mean(scaled):.{digits}f} ± {stdev(scaled):.{digits}f}"


def report(best: float) -> None:
    """Train every variant with every seed on data of one difficulty; print what came of it."""
    distance = 2 * NormalDist().inv_cdf(best)  # the best classifier cuts half-way
    lowest = best_loss(distance)
    data = [draw(SAMPLES, distance, seed) for seed in SEEDS]
    results = {
        run: [train(x, y, *run, seed) for seed, (x, y) in zip(SEEDS, data, strict=True)]
        for run in RUNS
    }
    print(f"\nBest possible: {100 * best:.0f} % right, loss {lowest:.3f}")
    print(f"{'':26}{'training loss':>15}{'training %':>15}{'test %':>15}")
    for (rate, steps), runs in results.items():
        loss, fitted, accuracy = zip(*runs, strict=True)
        name, losses = f"SGD {rate:g}, {steps:,} steps", spread(loss, 1, 3)
        print(f"{name:26}{losses:>15}{spread(fitted):>15}{spread(accuracy):>15}")
    neighbours, larger = zip(*(untrained(x, y) for x, y in data), strict=True)
    print(f"{f'{NEIGHBOURS} nearest neighbours':56}{spread(neighbours):>15}")
    print(f"{'larger class of the training samples':56}{spread(larger):>15}")
    low = sum(loss < LOSS_LIMIT for loss, _, _ in results[RUNS[0]])
    high = sum(accuracy >= CLAIMED_ACCURACY for _, _, accuracy in results[RUNS[0]])
    print(f"As claimed, of {len(SEEDS)} seeds: loss about 0.1: {low}, test 90 % or more: {high}")
    enough = [run for run, runs in results.items() if mean(r[0] for r in runs) < LOSS_LIMIT]
    if enough:
        remark = " (below the best possible: memorised)" if lowest > LOSS_LIMIT else ""
        print(f"Mean loss about 0.1 from rate × steps = {math.prod(enough[0]):g} on{remark}")


def main() -> None:
    for best in DIFFICULTIES:
        report(best)
    right = round(CLAIMED_ACCURACY * TEST_SAMPLES)
    error = math.sqrt(CLAIMED_ACCURACY * (1 - CLAIMED_ACCURACY) / TEST_SAMPLES)
    low, high = (100 * bound for bound in wilson_interval(right, TEST_SAMPLES))
    print(
        f"\nOne of {TEST_SAMPLES} test samples is {100 / TEST_SAMPLES:.1f} points. {right} right:"
    )
    print(
        f"standard error {100 * error:.1f} points, 95 % interval {low:.1f} to {high:.1f} % (Wilson)"
    )


if __name__ == "__main__":
    main()
