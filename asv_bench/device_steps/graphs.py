"""Steps captured in CUDA graphs by PyTorch and CuPy, which replay with the bits of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from device_steps.timing import is_simulated, optional

Write = Callable[[dict[str, Any]], None]
REPLAYS = 5


def run(write: Write) -> None:
    """Capture a step on one array and on several, in each library."""
    if is_simulated():
        write({"skipped": "the simulator has no graphs"})
        return
    for name, capture in (("torch", _with_torch), ("cupy", _with_cupy)):
        library = optional(name)
        if library is None:
            write({"library": name, "skipped": "not installed"})
            continue
        for sizes in ((1003,), (1003, 77, 5)):
            try:
                write({"library": name, "arrays": len(sizes), "same bits": capture(library, sizes)})
            except Exception as error:  # noqa: BLE001 - what fails is what is looked for
                write({"library": name, "arrays": len(sizes), "failed": f"{type(error).__name__}: {error}"[:1000]})


def _on_host(sizes: Any, steps: int) -> tuple[Any, Any, list[Any]]:
    from rmsprop_nb import RMSprop

    rng = np.random.default_rng(0)
    x, g = ([rng.normal(size=n).astype(np.float32) for n in sizes] for _ in "xg")
    expected = [a.copy() for a in x]
    optimizer = RMSprop(0.01)
    state = optimizer.init(expected)
    for _ in range(steps):
        optimizer.step(expected, g, state)
    return x, g, expected


def _with_torch(torch: Any, sizes: Any) -> bool:
    from rmsprop_nb import RMSprop

    host_x, host_g, expected = _on_host(sizes, REPLAYS + 1)
    x, g = ([torch.from_numpy(a).cuda() for a in arrays] for arrays in (host_x, host_g))
    optimizer = RMSprop(0.01, deterministic=True, check_finite=False)
    state = optimizer.init(x)
    optimizer.step(x, g, state)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step(x, g, state)
    for _ in range(REPLAYS):
        graph.replay()
    torch.cuda.synchronize()
    return all(np.array_equal(a.cpu().numpy(), b) for a, b in zip(x, expected, strict=True))


def _with_cupy(cupy: Any, sizes: Any) -> bool:
    from rmsprop_nb import RMSprop

    host_x, host_g, expected = _on_host(sizes, REPLAYS + 1)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x, g = ([cupy.asarray(a) for a in arrays] for arrays in (host_x, host_g))
        optimizer = RMSprop(0.01, deterministic=True, check_finite=False)
        state = optimizer.init(x)
        optimizer.step(x, g, state)
        stream.synchronize()
        stream.begin_capture()
        optimizer.step(x, g, state)
        graph = stream.end_capture()
        for _ in range(REPLAYS):
            graph.launch(stream)
        stream.synchronize()
    return all(np.array_equal(cupy.asnumpy(a), b) for a, b in zip(x, expected, strict=True))
