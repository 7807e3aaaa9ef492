"""PyTorch's loop, to be run by an interpreter that has PyTorch: `python torch_loop.py fit task.npz 3` prints seconds as JSON.

It is the loop that PyTorch's own tutorials show, on the same data.
"""

import itertools
import json
import sys
import time

import numpy as np
import torch
from torch import nn


def chain(sizes, hidden, output):
    parts = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        parts.append(nn.Linear(a, b))
        if i < len(sizes) - 2:
            parts.append(nn.ReLU() if hidden == "relu" else nn.Sigmoid())
        elif output == "sigmoid":
            parts.append(nn.Sigmoid())
    return nn.Sequential(*parts)


def fit(x, y, options):
    torch.manual_seed(0)
    model = chain(options["sizes"], options["hidden"], options["output"])
    optimizer = (torch.optim.Adam if options["adam"] else torch.optim.SGD)(model.parameters(), lr=options["rate"])
    sigmoid = options["output"] == "sigmoid"
    loss = nn.MSELoss() if options["squared"] else nn.BCELoss() if sigmoid else nn.CrossEntropyLoss()
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32 if sigmoid else torch.int64)
    for _ in range(options["epochs"]):
        order = torch.randperm(len(x)) if options["shuffle"] else torch.arange(len(x))
        for rows in order.split(options["batch"]):
            optimizer.zero_grad()
            error = loss(model(x[rows]), y[rows])
            error = error / 2 if options["squared"] else error
            error.backward()
            optimizer.step()
        if options["stop"] is not None and error.item() <= options["stop"]:
            break


def main():
    torch.set_num_threads(1)  # the fastest for networks of this size
    data = np.load(sys.argv[2])
    options, seconds = json.loads(str(data["options"])), []
    for _ in range(int(sys.argv[3])):
        start = time.perf_counter()
        fit(data["x"], data["y"], options)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
