"""Private steps of libraries for PyTorch, to be run by an interpreter that has PyTorch, Opacus or BackPACK.

    python benchmarks/private_torch.py [--rounds 30] [--cpu]

The models, batches and settings are those of `private.py`; a step clips, adds noise and updates. It prints the
same table: the ratio of a private step to the plain step of the same model, run in turn, medians. With `--cpu` times are of one
thread and of the processor, which says more on a busy machine.
"""

import argparse
import statistics
import time
import warnings

import torch
from torch import nn

try:
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.layers import DPGRU, DPLSTM
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
except ImportError:
    GradSampleModule = None
try:
    import backpack
    from backpack.extensions import BatchGrad
except ImportError:
    backpack = None

NORM, NOISE = 1.0, 1.0


class Last(nn.Module):
    """A recurrent layer and a dense one on its last step."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent, self.dense = recurrent, nn.Linear(128, 10)

    def forward(self, x):
        return self.dense(self.recurrent(x)[0][:, -1])


def mlp(private):
    parts = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    return nn.Sequential(*parts), (784,), 256


def convnet(private):
    parts = [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10)), (1, 28, 28), 128


def lstm(private):
    return Last((DPLSTM if private else nn.LSTM)(32, 128, batch_first=True)), (50, 32), 64


def gru(private):
    return Last((DPGRU if private else nn.GRU)(32, 128, batch_first=True)), (50, 32), 64


def step_of(model, loss, optimizer, shape, n):
    """A step on one batch of n random examples, a function without arguments."""
    x, y = torch.randn(n, *shape), torch.randint(10, (n,))

    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step


def plain_step(make):
    model, shape, n = make(False)
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9), nn.CrossEntropyLoss()
    return step_of(model, loss, optimizer, shape, n)


def opacus_step(make, ghost):
    model, shape, n = make(True)
    loss = nn.CrossEntropyLoss()
    kinds = (
        (GradSampleModuleFastGradientClipping, DPOptimizerFastGradientClipping)
        if ghost
        else (GradSampleModule, DPOptimizer)
    )
    options = {"max_grad_norm": NORM, "use_ghost_clipping": True} if ghost else {}
    model = kinds[0](model, **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    optimizer = kinds[1](optimizer, noise_multiplier=NOISE, max_grad_norm=NORM, expected_batch_size=n)
    loss = DPLossFastGradientClipping(model, optimizer, loss) if ghost else loss
    return step_of(model, loss, optimizer, shape, n)


def backpack_step(make):
    model, shape, n = make(False)
    if isinstance(model, Last):
        raise NotImplementedError("BackPACK wants a `Sequential`")
    model, loss = backpack.extend(model), backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x, y = torch.randn(n, *shape), torch.randint(10, (n,))
    weights = list(model.parameters())

    def step():
        optimizer.zero_grad()
        with backpack.backpack(BatchGrad()):
            loss(model(x), y).backward()
        squares = sum(w.grad_batch.flatten(1).square().sum(1) for w in weights)
        factors = (NORM / squares.sqrt()).clamp(max=1.0)
        for w in weights:
            clipped = torch.tensordot(factors, w.grad_batch, 1)
            w.grad = (clipped + NOISE * NORM * torch.randn_like(w)) / n
            del w.grad_batch
        optimizer.step()

    return step


MODELS = {"MLP 784-512-512-10": mlp, "convnet": convnet, "LSTM": lstm, "GRU": gru}
LIBRARIES = {
    "Opacus": lambda make: opacus_step(make, ghost=False),
    "Opacus, ghost clipping": lambda make: opacus_step(make, ghost=True),
    "BackPACK": backpack_step,
}


def ratio(plain, private, rounds, clock):
    for step in (plain, private, plain, private):
        step()
    times = {plain: [], private: []}
    for _ in range(rounds):
        for step in times:
            start = clock()
            step()
            times[step].append(clock() - start)
    ratios = [b / a for a, b in zip(times[plain], times[private], strict=True)]
    return statistics.median(times[plain]), statistics.median(times[private]), statistics.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    clock = time.process_time if arguments.cpu else time.perf_counter
    if arguments.cpu:
        torch.set_num_threads(1)
    installed = {"Opacus": GradSampleModule, "Opacus, ghost clipping": GradSampleModule, "BackPACK": backpack}
    print("| model | library | plain step | private step | ratio |\n|---|---|---|---|---|")
    for name, make in MODELS.items():
        for library, private in LIBRARIES.items():
            if installed[library] is None:
                continue
            torch.manual_seed(0)
            try:
                steps = plain_step(make), private(make)
                first, second, quotient = ratio(*steps, arguments.rounds, clock)
            except NotImplementedError as reason:
                print(f"| {name} | {library} | – | – | {reason} |", flush=True)
                continue
            print(f"| {name} | {library} | {first * 1e3:.3g} ms | {second * 1e3:.3g} ms | {quotient:.2f} |", flush=True)


if __name__ == "__main__":
    main()
