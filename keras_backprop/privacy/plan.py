"""Training with differential privacy: what to clip to, how much noise to add, which examples to draw, and when to stop.

plan = privacy.Plan(examples=60_000, expected_batch_size=2048, epochs=40, clipping_norm=0.1, epsilon=3.0, delta=1e-5)
model.compile(keras.optimizers.SGD(4.0, momentum=0.9), "sparse_categorical_crossentropy", gradients=plan)
model.fit(x, y, epochs=40)
print(plan.statement())
"""

import math
import numbers
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.privacy import accounting, arguments
from keras_backprop.privacy.clipping import Adaptive, Flat, PerLayer
from keras_backprop.privacy.copies import Copied
from keras_backprop.privacy.past import UNKNOWN, Past
from keras_backprop.privacy.private_sum import private_gradients
from keras_backprop.privacy.randomness import FromGenerator, FromSeed
from keras_backprop.privacy.requirements import require_private, require_private_model
from keras_backprop.privacy.sampling import Sampler
from keras_backprop.privacy.statement import statement
from keras_backprop.privacy.steps import Steps
from keras_backprop.privacy.trial import try_examples, what_is_compiled
from keras_backprop.privacy.workers import agree, require_same_data

CLIPPINGS = {"flat": Flat, "per layer": PerLayer, "adaptive": Adaptive}


@keras.saving.register_keras_serializable(package="keras_backprop")
class Plan(Steps, Copied):
    """What `compile(gradients=…)` takes for training with differential privacy (DP-SGD, Abadi et al., 2016).

    In each step the gradients of the drawn examples' own errors, times their sample weights, are clipped to the norm C and
    added up; noise of standard deviation σ·C is added to the sum, which is then divided by the expected batch size. `fit`
    draws the batches as the plan says, and ends with an error before the step that would exceed it. The optimizer, of any
    kind, gets private gradients.

    Args:
        examples: int, how many examples `fit` will be given. It counts as public.
        expected_batch_size: int, how many of them a step is to take on average.
        epochs: int, for how many passes over the data the plan allows.
        clipping_norm: float > 0, C. With clipping="per layer" also a dict, pattern of layers' paths -> norm; with "adaptive" the
            norm to start from.
        noise_multiplier: float ≥ 0, σ; or, in its place,
        epsilon: float > 0, the ε that all steps of the plan may reach: σ is computed from it.
        delta: float between 0 and 1, less than 1/examples if it is to mean much.
        sampling: "poisson", each example is in a batch with the same chance, independently; or "shuffled", each is in one
            batch an epoch, for which no amplification by sampling is claimed.
        neighbours: which data sets are to be hard to tell apart: "add or remove one", "replace one", or "zero out one".
        clipping: "flat", "per layer" or "adaptive", or a `keras_backprop.privacy.Adaptive` with settings of its own.
        largest_batch_size: int, with Poisson sampling the size of all batches in memory; of a larger draw a random part is taken,
            for which the accountant has a price. By default so large that it has none that one would notice.
        generator: where random numbers come from: an object with `standard_normal(size)` and `integers(low, high, size)`, such as
            a `numpy.random.Generator` or `keras_backprop.privacy.SystemRandom()`. By default TensorFlow's, from a secret seed.
        seed: int, in the place of the secret seed; for experiments, with a warning.

    Attributes:
        steps: int, how many steps have been taken. Saved with the model.
        planned_steps: int, how many the plan allows.
        steps_per_epoch: int.

    Raises:
        ImportError: dp-accounting is not installed.
        TypeError, ValueError: arguments that make no plan; and in training, a model whose examples' gradients cannot be told
            apart, and which layers are the reason; or data that are not `examples` in number.
        BudgetExceededError: (in training) before the step that would exceed the plan.
    """

    def __init__(
        self,
        examples: Any,
        expected_batch_size: Any,
        epochs: Any,
        clipping_norm: Any,
        noise_multiplier: Any = None,
        epsilon: Any = None,
        delta: Any = None,
        sampling: str = "poisson",
        neighbours: str = "add or remove one",
        clipping: Any = "flat",
        largest_batch_size: Any = None,
        generator: Any = None,
        seed: Any = None,
    ) -> None:
        self.examples = arguments.count("examples", examples)
        self.expected_batch_size = arguments.count("expected_batch_size", expected_batch_size, self.examples)
        self.delta = arguments.number("delta", delta, below=1)
        self.sampling = arguments.one_of("sampling", sampling, accounting.SAMPLINGS)
        self.neighbours = arguments.one_of("neighbours", neighbours, accounting.NEIGHBOURS)
        if (noise_multiplier is None) == (epsilon is None):
            raise ValueError(
                "Give either `noise_multiplier` or `epsilon`, from which it is computed. Received: "
                f"noise_multiplier={noise_multiplier!r}, epsilon={epsilon!r}"
            )
        self.target_epsilon = None if epsilon is None else arguments.number("epsilon", epsilon)
        if generator is not None and seed is not None:
            raise ValueError(f"Give either `generator` or `seed`. Received: generator={generator!r}, seed={seed!r}")
        super().__init__(arguments.count("epochs", epochs), math.ceil(self.examples / self.expected_batch_size))
        accounting.library()
        if largest_batch_size is not None and sampling == "shuffled":
            raise ValueError(
                "`largest_batch_size` is for Poisson sampling; the batches of shuffled examples are all alike."
            )
        self._given_largest = largest_batch_size
        if largest_batch_size is not None:
            largest = arguments.count("largest_batch_size", largest_batch_size, self.examples, self.expected_batch_size)
        elif sampling == "shuffled":
            largest = self.expected_batch_size
        else:  # so rare over all steps that one cannot see it in ε
            chance = 10 * self.delta / self.planned_steps
            largest = accounting.largest_batch(self.examples, self.expected_batch_size, chance)
        self.largest_batch_size = largest
        if self.target_epsilon is not None:
            self.noise_multiplier = accounting.noise_for(
                self._mechanism(0.0), self.planned_steps, self.delta, self.target_epsilon
            )
        else:
            self.noise_multiplier = arguments.number("noise_multiplier", noise_multiplier, zero=True)
        self._given_norm, self.clipping = clipping_norm, self._clipping(clipping, clipping_norm)
        self._randomness = FromSeed(seed) if generator is None else FromGenerator(generator)
        self._generator, self._seed = generator, seed
        self.past = Past(lambda: self.steps, self.parts_used, self._randomness.source)
        self.sensitivity: Any = None
        self._tried: Any = None
        self._optimizer: Any = None

    def _clipping(self, kind, norm):
        self._given_clipping = kind
        if isinstance(kind, str) and kind in CLIPPINGS:
            clipping = Adaptive() if kind == "adaptive" else None
        elif isinstance(kind, Adaptive):
            clipping = Adaptive(**kind.get_config())  # it holds the norm of one training
        else:
            raise ValueError(f"`clipping` must be one of {tuple(CLIPPINGS)} or an `Adaptive`. Received: {kind!r}")
        if isinstance(norm, dict):
            if kind != "per layer" or not norm:
                raise ValueError(
                    f'A dict of norms is for clipping="per layer". Received: clipping={kind!r}, clipping_norm={norm!r}'
                )
            norm = {pattern: arguments.number(f"clipping_norm[{pattern!r}]", one) for pattern, one in norm.items()}
        else:
            norm = arguments.number("clipping_norm", norm)
        if clipping is None:
            return CLIPPINGS[kind](norm)
        clipping.begin(norm, self.noise_multiplier, self.expected_batch_size)
        return clipping

    @property
    def clipping_norm(self) -> Any:
        """C, a float; with per-layer norms as given; with adaptive clipping what it is now."""
        norm = self.clipping.norm
        return float(keras.ops.convert_to_numpy(norm)) if isinstance(norm, keras.Variable) else norm

    @property
    def variables(self) -> list[Any]:
        """All that changes in training: the number of steps, the random state, the adapted norm."""
        return [self._count, *self._randomness.variables, *self.clipping.variables]

    def epsilon(self, steps: Any = None, delta: Any = None, accountant: str = "pld") -> float:
        """ε after a number of steps.

        Args:
            steps: int ≥ 0; by default those that have been taken.
            delta: float; by default the plan's.
            accountant: "pld", or "rdp", a looser bound.

        Raises:
            ValueError: not such numbers, or an accountant that does not know this case.
        """
        if steps is None:
            steps = self.steps
        if isinstance(steps, bool) or not isinstance(steps, numbers.Integral) or steps < 0:
            raise ValueError(f"`steps` must be a whole number, 0 or more. Received: steps={steps!r}")
        delta = self.delta if delta is None else arguments.number("delta", delta, below=1)
        return accounting.epsilon(self._mechanism(self.noise_multiplier), int(steps), delta, accountant)

    def statement(self, steps: Any = None) -> str:
        """A paragraph: what is guaranteed after so many steps (those taken, by default), by what means, and what is not."""
        return statement(self, self.steps if steps is None else steps)

    def __call__(self, result: Any) -> list[Any]:
        """The private gradients of a `Backward`, a list. It counts as a step.

        Raises:
            ValueError: gradients of single examples do not exist in this model, and why.
            BudgetExceededError: the plan allows no further step. (In a `tf.function`, `tf.errors.InvalidArgumentError`; where
                XLA compiles it, which knows no such errors, further steps have noise alone, and nothing of the examples.)
        """
        require_private(result)
        allowed = self.is_within_budget
        if tf.executing_eagerly():
            self.require_budget()
            return private_gradients(self, result, allowed)
        with tf.control_dependencies([self.budget_asserted(allowed)]):  # nobody is asked before the function runs
            return private_gradients(self, result, allowed)

    def of_no_step(self, result: Any) -> list[Any]:
        """The same for an explanation, also after the last step: it takes none, and puts the `variables` back."""
        require_private(result)
        return private_gradients(self, result)

    def _mechanism(self, noise):
        return accounting.Mechanism(
            self.examples, self.expected_batch_size, self.largest_batch_size, noise, self.sampling, self.neighbours
        )

    # What `fit` asks of it.

    def prepare(self, model: Any, given: bool = False) -> None:
        """Look at the model that is to be trained, before a step of it is traced; with `given`, on a batch of the caller's."""
        self._optimizer = optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        parts = getattr(optimizer, "gradient_accumulation_steps", None) or 1
        if parts != self.parts:
            self.begin_whole(parts)
        require_private_model(model)
        agree(self, model.distribute_strategy)
        if not optimizer.built:
            self.begin_whole(parts)
        count = self.parts_used()
        calls = int(_keras.calls_of(optimizer)) if parts > 1 and optimizer.built else count
        if (count - calls) % parts:
            raise ValueError(
                f"The optimizer has accumulated {calls % parts} of {parts} parts of a batch, the plan has "
                f"used {count % parts}: an example would count twice. Compile the model with a new optimizer."
            )
        if optimizer is not model.optimizer:
            # A loss scale that follows the data would tell about them; that examples overflow is dealt with one by one.
            model.optimizer.dynamic_growth_steps = 2**31 - 1
        if given and self._tried != what_is_compiled(model):
            self.past.tried = False

    def require_same_data(self, model: Any, data: Any) -> None:
        """See that several workers have the same examples, a list of tensors, before anything is said of them on one."""
        require_same_data(self, model.distribute_strategy, data)

    def try_examples(self, model: Any, x: Any, y: Any) -> None:
        """Try, once for each compiled model, whether examples contribute alike, whoever else is in the batch."""
        compiled = what_is_compiled(model)
        if self._tried == compiled or self.examples < 3:
            return
        rows = -(-self.sampler.rows // model.distribute_strategy.num_replicas_in_sync)
        if try_examples(model, x, y, self.examples, rows):
            self._tried = compiled
            self.past.tried |= not self.steps
        else:
            self.past.tried = False

    def state_of_past(self) -> dict[str, Any]:
        """What a backup is to hold beside the values of `variables`, for JSON."""
        return {**self.past.state(), "key": self._randomness.source_of_key}

    def restore_past(self, state: Any) -> None:
        """Is told what `state_of_past` was, or None, when a backup has given all `variables` their values."""
        self._randomness.source_of_key = UNKNOWN if state is None else state["key"]
        self.past.restore(state, self._randomness.source)

    @property
    def sampler(self) -> Sampler:
        """What draws the batches."""
        sizes = self.examples, self.expected_batch_size, self.largest_batch_size
        return Sampler(*sizes, self.sampling, self.parts, self._randomness)

    @property
    def repeatable(self) -> bool:
        """Whether a step that is run again draws the same random numbers."""
        return self._generator is None

    def get_config(self) -> dict[str, Any]:
        """All but the random state, which must not be in a file that is meant for others."""
        clipping = self._given_clipping
        return {
            "examples": self.examples,
            "expected_batch_size": self.expected_batch_size,
            "epochs": self.epochs,
            "clipping_norm": self.clipping_norm if isinstance(self.clipping, Adaptive) else self._given_norm,
            "noise_multiplier": self.noise_multiplier,
            "delta": self.delta,
            "sampling": self.sampling,
            "neighbours": self.neighbours,
            "clipping": clipping if isinstance(clipping, str) else {"adaptive": clipping.get_config()},
            "largest_batch_size": self._given_largest,
            "steps": self.steps,
            "past": self.past.state(),
        }

    @classmethod
    def from_config(cls, config: Any) -> Any:
        config = dict(config)
        steps, past = config.pop("steps", 0), config.pop("past", None)
        config.pop("steps_were", None)  # of models that an earlier version has saved
        if isinstance(config.get("clipping"), dict):
            config["clipping"] = Adaptive(**config["clipping"]["adaptive"])
        plan = cls(**config)
        plan._count.assign(steps)
        if steps:
            plan.past.restore(past, plan._randomness.source)
        return plan

    def __repr__(self) -> str:
        return (
            f"Plan(examples={self.examples}, expected_batch_size={self.expected_batch_size}, epochs={self.epochs}, "
            f"clipping_norm={self.clipping_norm}, noise_multiplier={self.noise_multiplier:.6g}, delta={self.delta:g}, "
            f"sampling={self.sampling!r}, neighbours={self.neighbours!r})"
        )
