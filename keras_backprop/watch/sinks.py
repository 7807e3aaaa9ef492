"""Where figures go besides the history: TensorBoard, a CSV file, anything that logs dicts."""

import csv
import os
from typing import Any

import numpy as np
import tensorflow as tf

from keras_backprop.watch.history import KEYS, line
from keras_backprop.watch.moments import EDGES


class Csv:
    """A file of records, a line each; of a training that goes on, lines are added.

    Args:
        path: str or path.
    """

    def __init__(self, path: Any) -> None:
        self.path, self._begun = os.fspath(path), False

    def write(self, records: Any) -> None:
        with open(self.path, "a" if self._begun else "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if not self._begun:
                writer.writerow(KEYS)
            writer.writerows(line(record) for record in records)
        self._begun = True


class Logger:
    """An object with a method `log`, which is given a dict for each step: "epoch", "step" and `path/of/quantity` -> value.

    Args:
        logger: the object.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def write(self, records: Any) -> None:
        steps: dict = {}
        for r in records:
            figures = steps.setdefault(r["step"], {"epoch": r["epoch"], "step": r["step"]})
            figures[tag(r)] = r["value"]
        for figures in steps.values():
            self.logger.log(figures)


class TensorBoard:
    """Scalars and histograms for TensorBoard, by path, in a directory.

    Args:
        directory: str or path.
    """

    def __init__(self, directory: Any) -> None:
        self.directory = os.fspath(directory)
        self._writer: Any = None

    def write(self, records: Any) -> None:
        self._writer = self._writer or tf.summary.create_file_writer(self.directory)
        with self._writer.as_default():
            for record in records:
                if record["quantity"] == "histogram":
                    _write_histogram(tag(record), record["value"], record["step"])
                elif np.ndim(record["value"]) == 0:
                    tf.summary.scalar(tag(record), record["value"], step=record["step"])
                else:
                    for t, value in enumerate(record["value"]):
                        tf.summary.scalar(f"{tag(record)}/{t}", value, step=record["step"])
        self._writer.flush()


def tag(record: dict[str, Any]) -> str:
    """The name of a record's figure: `encoder/dense/delta/norm`."""
    return f"{record['path']}/{record['of']}/{record['quantity']}"


def _write_histogram(name, counts, step):
    """A histogram whose bins are known already: of the logarithms of magnitudes, to the base of 10."""
    edges = np.log10(EDGES)
    left, right = np.append(edges[0] - 0.5, edges), np.append(edges, edges[-1] + 0.5)
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data={"plugin_name": "histograms", "content": b""}, summary_description="log10 of the magnitudes"
    )
    tf.summary.write(name, tf.constant(np.stack([left, right, counts], 1), tf.float64), step=step, metadata=metadata)
