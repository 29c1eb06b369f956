"""Learn to read handwritten digits: a two-layer network, trained by gradient descent.

    python examples/digits.py

The data are 1,797 images of 8 x 8 pixels (examples/data/README.md). A training step is declared as
one graph and runs as one native function: the loss, its gradient and the update of the parameters.
At the end it prints what was fused, what a separate backward needs to keep, and the speed against
the same step in NumPy; examples/out/digits.png is a picture.
"""

import time
from pathlib import Path

import matplotlib
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import graphc

HERE = Path(__file__).parent
PIXELS, HIDDEN, CLASSES = 64, 128, 10
PARAMETERS = {
    "w1": graphc.f64[PIXELS, HIDDEN],
    "b1": graphc.f64[HIDDEN],
    "w2": graphc.f64[HIDDEN, CLASSES],
    "b2": graphc.f64[CLASSES],
}
TRAINED = 1437  # images to train on; the other 360 are held out
EPOCHS, BATCH, RATE, MOMENTUM = 60, 64, 0.1, 0.9


# -- the graphs -----------------------------------------------------------------------------------


def scores(x, p):
    hidden = graphc.relu(x @ p["w1"] + p["b1"])
    return hidden @ p["w2"] + p["b2"]


@graphc.graph
def loss(x: graphc.f64["n", PIXELS], labels: graphc.i64["n"], p: PARAMETERS):
    """Softmax cross-entropy: the mean of -log of the probability given to the true digit."""
    z = scores(x, p)
    is_label = labels[:, None] == np.arange(CLASSES)
    return (graphc.logsumexp(z, axis=1) - np.where(is_label, z, 0.0).sum(axis=1)).mean()


@graphc.graph
def training_step(
    x: graphc.f64["n", PIXELS],
    labels: graphc.i64["n"],
    p: PARAMETERS,
    velocity: PARAMETERS,
    rate: graphc.f64,
):
    """The loss, and the parameters and velocity after a step of gradient descent with momentum."""
    value, gradient = graphc.value_and_grad(loss, argnums=2)(x, labels, p)
    velocity = {k: MOMENTUM * velocity[k] - rate * gradient[k] for k in p}
    return value, {k: p[k] + velocity[k] for k in p}, velocity


@graphc.graph
def probabilities(x: graphc.f64["n", PIXELS], p: PARAMETERS):
    return graphc.softmax(scores(x, p), axis=1)


# -- data and training ----------------------------------------------------------------------------


def load(rng):
    """(Images, labels) to train on, and those held out, shuffled; pixels are in 0..1."""
    table = np.loadtxt(HERE / "data" / "digits.csv.gz", delimiter=",", dtype=np.int64)
    table = table[rng.permutation(len(table))]
    x, labels = table[:, :PIXELS] / 16.0, table[:, PIXELS]
    return (x[:TRAINED], labels[:TRAINED]), (x[TRAINED:], labels[TRAINED:])


def start(rng):
    """Random weights of variance 1 / inputs, zero biases; and no velocity."""
    made = {k: np.zeros(t.shape) for k, t in PARAMETERS.items()}
    for k in ("w1", "w2"):
        made[k] = rng.normal(size=made[k].shape) / np.sqrt(len(made[k]))
    return made, {k: np.zeros_like(a) for k, a in made.items()}


def train(step, data, held_out, rng):
    """The trained parameters, the loss of every step, and the held-out accuracy of every epoch."""
    classify = graphc.compile(probabilities)
    p, velocity = start(rng)
    losses, accuracies = [], []
    columns = "[bold]training", BarColumn(30), MofNCompleteColumn(), "epochs", TimeElapsedColumn()
    status = TextColumn("loss {task.fields[loss]:.4f}  held out {task.fields[accuracy]:.2%}")
    with Progress(*columns, status) as progress:
        task = progress.add_task("", total=EPOCHS, loss=np.nan, accuracy=0.0)
        for epoch in range(EPOCHS):
            rate = RATE * (1 - epoch / EPOCHS)
            for batch in np.array_split(rng.permutation(TRAINED), TRAINED // BATCH):
                value, p, velocity = step(data[0][batch], data[1][batch], p, velocity, rate)
                losses.append(value)
            guesses = classify(held_out[0], p).argmax(axis=1)
            accuracies.append((guesses == held_out[1]).mean())
            progress.update(task, advance=1, loss=losses[-1], accuracy=accuracies[-1])
    return p, losses, accuracies


# -- the same step in NumPy -----------------------------------------------------------------------


def numpy_step(x, labels, p, velocity, rate):
    """What `training_step` computes, with the backward written by hand."""
    rows = np.arange(len(x))
    before = x @ p["w1"] + p["b1"]
    hidden = np.maximum(before, 0.0)
    z = hidden @ p["w2"] + p["b2"]
    z -= z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    value = (np.log(total[:, 0]) - z[rows, labels]).mean()

    dz = e / total
    dz[rows, labels] -= 1.0
    dz /= len(x)
    dbefore = (dz @ p["w2"].T) * (before > 0.0)
    gradient = {
        "w1": x.T @ dbefore,
        "b1": dbefore.sum(axis=0),
        "w2": hidden.T @ dz,
        "b2": dz.sum(axis=0),
    }
    velocity = {k: MOMENTUM * velocity[k] - rate * gradient[k] for k in p}
    return value, {k: p[k] + velocity[k] for k in p}, velocity


def compare(step, x, labels, rounds=1000):
    """Median seconds of a training step, compiled and in NumPy, in turns; the results agree."""
    given = (x, labels, *start(np.random.default_rng(1)), RATE)
    for ours, theirs in zip(leaves(step(*given)), leaves(numpy_step(*given))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    seconds = [[timed(step, given), timed(numpy_step, given)] for _ in range(rounds)]
    return np.median(seconds, axis=0)


def leaves(results):
    value, p, velocity = results
    return [value, *p.values(), *velocity.values()]


def timed(function, args):
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


# -- the report -----------------------------------------------------------------------------------


def report(step, x, labels, p):
    """Print what was fused, what is kept for the backward, and the speed."""
    kernels = graphc.compile(loss, wrt="p")
    print(f"\n{kernels.explain()}")

    _, saved = kernels.forward(x, labels, p)
    print(
        f"\nForward and backward apart, for {len(x)} images: {saved.nbytes:,} bytes saved between"
    )
    print(f"them, where the Jacobians of all gates would be {saved.dense_nbytes:,}")

    ours, theirs = compare(step, x, labels)
    print(f"\nA training step, with the update, takes {ours * 1e6:.0f} us; in NumPy, with its")
    print(f"backward by hand, {theirs * 1e6:.0f} us: the ratio is {theirs / ours:.2f}")


def picture(losses, accuracies, x, labels, given, path):
    """The loss curve, and 40 held-out images with the digits they were read as, mistakes first."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = pyplot.figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    draw_curves(left, np.array(losses), np.array(accuracies))
    guesses = given.argmax(axis=1)
    wrong_first = np.argsort(guesses == labels, kind="stable")[:40]
    count = (guesses != labels).sum()
    title = f"held-out images and what they were read as ({count} of {len(labels)} wrong)"
    right.suptitle(title, fontsize=10)
    for ax, i in zip(right.subplots(5, 8).flat, wrong_first):
        draw_digit(ax, x[i], labels[i], guesses[i], given[i].max())
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")
    pyplot.close(figure)


def draw_curves(figure, losses, accuracies):
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
    per_epoch = losses.reshape(EPOCHS, -1)
    above.semilogy(
        np.arange(1, losses.size + 1) / per_epoch.shape[1], losses, color="#b9cbe4", lw=0.6
    )
    above.semilogy(np.arange(EPOCHS) + 0.5, per_epoch.mean(axis=1), color="#1f4e9c", lw=1.8)
    above.set_title("training loss: each step, and the mean of an epoch", fontsize=10)
    below.plot(np.arange(EPOCHS) + 1, 100 * (1 - accuracies), color="#c2452d", lw=1.5)
    below.set(ylim=(0, 8), xlim=(0, EPOCHS), xlabel="epoch")
    below.set_title(
        f"held-out images misread, in %: {100 * (1 - accuracies[-1]):.1f} at the end", fontsize=10
    )
    for ax in (above, below):
        ax.grid(alpha=0.25, lw=0.5)


def draw_digit(ax, image, label, guess, confidence):
    ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    right = guess == label
    text = f"{guess}" if right else f"{guess}, is {label}"
    ax.set_title(text, fontsize=9, pad=3, color="#2b2b2b" if right else "#c2452d", weight="bold")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color="#cccccc" if right else "#c2452d", lw=0.6 if right else 1.6)
    ax.set_xlabel(f"{confidence:.0%}", fontsize=6.5, labelpad=1.5, color="#777777")


def main():
    rng = np.random.default_rng(0)
    data, held_out = load(rng)
    step = graphc.compile(training_step)
    p, losses, accuracies = train(step, data, held_out, rng)
    report(step, data[0][:BATCH], data[1][:BATCH], p)

    given = graphc.compile(probabilities)(held_out[0], p)
    path = HERE / "out" / "digits.png"
    picture(losses, accuracies, *held_out, given, path)
    print(f"\nHeld-out images read correctly: {accuracies[-1]:.2%} of {len(held_out[1])}.")
    print(f"Picture: {path}")
    assert accuracies[-1] >= 0.97


if __name__ == "__main__":
    main()
