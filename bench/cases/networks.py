"""Parts of networks, a toy network, and training steps that matrix products bind."""

import numpy as np

from bench.cases.case import PRODUCTS, Case, sigmoid

# -- softmax cross-entropy ------------------------------------------------------------------------


def cross_entropy(xp, z, labels):
    return xp.cross_entropy(z, labels)


def cross_entropy_data(classes):
    def data(rng, n):
        return rng.normal(size=(n, classes)), rng.integers(0, classes, n)

    return data


def cross_entropy_value(z, labels):
    top = z.max(axis=1)
    total = np.exp(z - top[:, None]).sum(axis=1)
    return (np.log(total) + top - z[np.arange(len(z)), labels]).mean()


def cross_entropy_gradient(z, labels):
    rows, top = np.arange(len(z)), z.max(axis=1)
    dz = np.exp(z - top[:, None])
    total = dz.sum(axis=1)
    value = (np.log(total) + top - z[rows, labels]).mean()
    dz /= (len(z) * total)[:, None]
    dz[rows, labels] -= dz.dtype.type(1.0 / len(z))
    return value, (dz,)


def cross_entropy_case(n: int, classes: int) -> Case:
    return Case(
        f"cross-entropy {n}x{classes}", "cross_entropy", n, cross_entropy,
        {"z": f"f64[n,{classes}]", "labels": "i64[n]"}, ("z",),
        cross_entropy_data(classes), cross_entropy_value, cross_entropy_gradient,
    )  # fmt: skip


# -- layer norm -----------------------------------------------------------------------------------


def layer_norm(xp, x, gain, bias, target):
    """Half the mean square between a layer norm of x and a target."""
    apart = xp.layer_norm(x, gain, bias) - target
    return 0.5 * (apart * apart).mean()


def layer_norm_data(d):
    def data(rng, n):
        gain, bias = rng.normal(size=d), rng.normal(size=d)
        return rng.normal(size=(n, d)), gain, bias, rng.normal(size=(n, d))

    return data


def layer_norm_forward(x, gain, bias, target):
    apart = x - x.mean(axis=1, keepdims=True)
    scale = 1.0 / np.sqrt(np.einsum("ij,ij->i", apart, apart) / x.shape[1] + 1e-5)[:, None]
    normal = apart * scale
    error = normal * gain + bias - target
    return 0.5 * np.einsum("ij,ij->", error, error) / error.size, error, normal, scale


def layer_norm_value(x, gain, bias, target):
    return layer_norm_forward(x, gain, bias, target)[0]


def layer_norm_gradient(x, gain, bias, target):
    value, dy, normal, scale = layer_norm_forward(x, gain, bias, target)
    dy /= dy.size
    dnormal = dy * gain
    mean = dnormal.mean(axis=1, keepdims=True)
    along = np.einsum("ij,ij->i", dnormal, normal)[:, None] / x.shape[1]
    dx = scale * (dnormal - mean - normal * along)
    return value, (dx, np.einsum("ij,ij->j", dy, normal), dy.sum(axis=0))


def layer_norm_case(n: int, d: int) -> Case:
    vector, rows = f"f64[{d}]", f"f64[n,{d}]"
    return Case(
        f"layer norm {n}x{d}", "layer_norm", n, layer_norm,
        {"x": rows, "gain": vector, "bias": vector, "target": rows}, ("x", "gain", "bias"),
        layer_norm_data(d), layer_norm_value, layer_norm_gradient,
    )  # fmt: skip


# -- a toy network: which side of two moons -------------------------------------------------------

HIDDEN = 16
TOY = {
    "b1": f"f64[{HIDDEN}]", "b2": f"f64[{HIDDEN}]", "b3": "f64",
    "w1": f"f64[2,{HIDDEN}]", "w2": f"f64[{HIDDEN},{HIDDEN}]", "w3": f"f64[{HIDDEN}]",
}  # fmt: skip


def toy(xp, x, y, p):
    h = xp.tanh(xp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
    z = h @ p["w3"] + p["b3"]
    return (xp.softplus(z) - y * z).mean()


def toy_data(rng, n):
    shapes = {"w1": (2, HIDDEN), "w2": (HIDDEN, HIDDEN), "w3": (HIDDEN,)}
    p = {name: rng.normal(size=shape) / np.sqrt(shape[0]) for name, shape in shapes.items()}
    p |= {"b1": np.zeros(HIDDEN), "b2": np.zeros(HIDDEN), "b3": np.float64(0.1)}
    return rng.normal(size=(n, 2)), (rng.random(n) < 0.5).astype(float), dict(sorted(p.items()))


def toy_value(x, y, p):
    h = np.tanh(np.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
    z = h @ p["w3"] + p["b3"]
    return (np.logaddexp(0.0, z) - y * z).mean()


def toy_gradient(x, y, p):
    h1 = np.tanh(x @ p["w1"] + p["b1"])
    h2 = np.tanh(h1 @ p["w2"] + p["b2"])
    z = h2 @ p["w3"] + p["b3"]
    dz = (sigmoid(z) - y) / len(y)
    d2 = np.outer(dz, p["w3"]) * (1 - h2 * h2)
    d1 = (d2 @ p["w2"].T) * (1 - h1 * h1)
    grads = {
        "b1": d1.sum(axis=0), "b2": d2.sum(axis=0), "b3": dz.sum(),
        "w1": x.T @ d1, "w2": h1.T @ d2, "w3": dz @ h2,
    }  # fmt: skip
    return (np.logaddexp(0.0, z) - y * z).mean(), (grads,)


TOY_CASE = Case(
    f"toy training step 100x2x{HIDDEN}x{HIDDEN}x1", "toy", 100, toy,
    {"x": "f64[n,2]", "y": "f64[n]", "p": TOY}, ("p",), toy_data, toy_value, toy_gradient, rate=0.1,
)  # fmt: skip


# -- training steps, bound by matrix products -----------------------------------------------------


def network(xp, x, labels, p):
    """The cross-entropy of a network with relu between its layers."""
    h, layers = x, len(p) // 2
    for i in range(1, layers):
        h = xp.relu(h @ p[f"w{i}"] + p[f"b{i}"])
    return xp.cross_entropy(h @ p[f"w{layers}"] + p[f"b{layers}"], labels)


def network_data(widths, float_):
    def data(rng, n):
        p = {f"b{i}": np.zeros(m, float_) for i, m in enumerate(widths[1:], 1)}
        for i, (m, k) in enumerate(zip(widths, widths[1:]), 1):
            p[f"w{i}"] = (rng.normal(size=(m, k)) * np.sqrt(2 / m)).astype(float_)
        x = rng.normal(size=(n, widths[0])).astype(float_)
        return x, rng.integers(0, widths[-1], n), p

    return data


def network_forward(x, labels, p):
    """All layers' results, the input first, the scores last."""
    results, layers = [x], len(p) // 2
    for i in range(1, layers + 1):
        z = results[-1] @ p[f"w{i}"] + p[f"b{i}"]
        results.append(np.maximum(z, 0.0, out=z) if i < layers else z)
    return results


def network_value(x, labels, p):
    return cross_entropy_value(network_forward(x, labels, p)[-1], labels)


def network_gradient(x, labels, p):
    *results, z = network_forward(x, labels, p)
    value, (d,) = cross_entropy_gradient(z, labels)
    grads = {}
    for i in range(len(results), 0, -1):
        h = results[i - 1]
        grads[f"w{i}"], grads[f"b{i}"] = h.T @ d, d.sum(axis=0)
        if i > 1:
            d = (d @ p[f"w{i}"].T) * (h > 0)
    return value, (grads,)


def network_case(n: int, widths: tuple[int, ...], dtype: str) -> Case:
    p = {f"b{i}": f"{dtype}[{m}]" for i, m in enumerate(widths[1:], 1)}
    p |= {f"w{i}": f"{dtype}[{m},{k}]" for i, (m, k) in enumerate(zip(widths, widths[1:]), 1)}
    name = "x".join(map(str, (n, *widths)))
    float_, rtol = (np.float32, 1e-3) if dtype == "f32" else (np.float64, 1e-9)
    return Case(
        f"training step {name} {dtype}", "network", n, network,
        {"x": f"{dtype}[n,{widths[0]}]", "labels": "i64[n]", "p": p}, ("p",),
        network_data(widths, float_), network_value, network_gradient, group=PRODUCTS, rate=0.1,
        compute_bound=True, rtol=rtol,
    )  # fmt: skip


CASES = (
    cross_entropy_case(8, 10),
    cross_entropy_case(1024, 1000),
    layer_norm_case(8, 32),
    layer_norm_case(4096, 768),
    TOY_CASE,
    network_case(64, (3072, 100, 10), "f64"),
    network_case(256, (784, 512, 512, 10), "f64"),
    network_case(64, (3072, 100, 10), "f32"),
    network_case(256, (784, 512, 512, 10), "f32"),
)
