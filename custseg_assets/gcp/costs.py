"""What a training job on Vertex AI, or a batch on Dataproc Serverless, can cost at most, checked before it starts."""

from __future__ import annotations

from custseg_assets.domain.promotion.retraining import TrainingCost
from custseg_assets.errors import BadInputError
from custseg_assets.settings import GcpDataprocSettings, GcpTrainingSettings

PRICES_OF = "2025, us-central1"
"""When and where the prices below were looked up; for other regions set ``price_per_hour``."""

# USD an hour of Vertex AI custom training: list price of a machine that is not spot, with the management fee.
_MACHINES = {
    "e2-standard-4": 0.154126,
    "e2-standard-8": 0.308252,
    "e2-standard-16": 0.616503,
    "n1-standard-4": 0.218499,
    "n1-standard-8": 0.436999,
    "n1-standard-16": 0.873997,
    "n1-standard-32": 1.747995,
    "n1-highmem-4": 0.272080,
    "n1-highmem-8": 0.544161,
    "n1-highmem-16": 1.088321,
}
_ACCELERATORS = {"NVIDIA_TESLA_T4": 0.4025, "NVIDIA_TESLA_P100": 1.679, "NVIDIA_TESLA_V100": 2.852}
# Of Dataproc Serverless, standard tier: USD an hour of a Data Compute Unit, and a month of a GB of shuffle storage. A
# driver or executor of 4 cores with 4 GB each is 4 × (0.6 + 4 × 0.1) units, with memory up to 8 GB a core at most
# 4 × (0.6 + 8 × 0.1); each has 400 GB of storage.
_DCU_HOUR, _SHUFFLE_GB_MONTH = 0.06, 0.04
_LARGEST_DCUS, _DISK_GB, _HOURS_A_MONTH = 5.6, 400, 730


def highest_cost(training: GcpTrainingSettings) -> float:
    """The cost of a job that takes all the time it may, in USD.

    A spot machine counts at full price: its discount changes daily.

    Raises:
        BadInputError: there is no price for the machine.
    """
    per_hour = training.price_per_hour
    if per_hour is None:
        machine = _price(training.machine_type, _MACHINES)
        accelerators = _price(training.accelerator_type, _ACCELERATORS) if training.accelerator_type else 0.0
        per_hour = machine + training.accelerator_count * accelerators
    return per_hour * training.timeout_minutes / 60


def training_cost(training: GcpTrainingSettings) -> TrainingCost:
    """The cost of a training and the budget, for the retrain decision; no cost if no price is known."""
    try:
        return TrainingCost(highest_cost(training), training.max_cost_per_quarter)
    except BadInputError:
        return TrainingCost(None, training.max_cost_per_quarter)


def check_cost(training: GcpTrainingSettings) -> str:
    """Check that a job cannot cost more than allowed, and return a sentence about its cost.

    Raises:
        BadInputError: it is higher than allowed, or there is no price for the machine.
    """
    cost = highest_cost(training)
    if cost > training.max_cost:
        raise BadInputError(
            f"a job of up to {training.timeout_minutes:g} minutes on {training.machine_type} can cost {cost:.2f} USD",
            f"at most [gcp.training] max_cost = {training.max_cost:g}",
            "Allow it less time (timeout_minutes), a smaller machine, or more money.",
        )
    source = "price_per_hour" if training.price_per_hour is not None else f"list prices of {PRICES_OF}"
    return (
        f"at most {cost:.2f} USD: {training.timeout_minutes:g} minutes of {training.machine_type}, {source}; "
        f"allowed are {training.max_cost:.2f}"
    )


def highest_batch_cost(dataproc: GcpDataprocSettings) -> float:
    """The cost of a batch that takes all the time and executors it may, in USD.

    Each machine counts with the most memory that the standard tier has.
    """
    per_unit = _DCU_HOUR if dataproc.price_per_dcu_hour is None else dataproc.price_per_dcu_hour
    per_machine = _LARGEST_DCUS * per_unit + _DISK_GB * _SHUFFLE_GB_MONTH / _HOURS_A_MONTH
    return (1 + dataproc.max_executors) * per_machine * dataproc.timeout_minutes / 60


def check_batch_cost(dataproc: GcpDataprocSettings) -> str:
    """Check that a batch cannot cost more than allowed, and return a sentence about its cost.

    Raises:
        BadInputError: it is higher than allowed.
    """
    cost = highest_batch_cost(dataproc)
    machines = f"{dataproc.timeout_minutes:g} minutes of a driver and {dataproc.max_executors} executors"
    if cost > dataproc.max_cost:
        raise BadInputError(
            f"a batch of up to {machines} can cost {cost:.2f} USD",
            f"at most [gcp.dataproc] max_cost = {dataproc.max_cost:g}",
            "Allow it less time (timeout_minutes), fewer machines (max_executors), or more money.",
        )
    source = "price_per_dcu_hour" if dataproc.price_per_dcu_hour is not None else f"list prices of {PRICES_OF}"
    return f"at most {cost:.2f} USD: {machines}, {source}; allowed are {dataproc.max_cost:.2f}"


def _price(name: str, table: dict[str, float]) -> float:
    try:
        return table[name]
    except KeyError:
        raise BadInputError(
            f"no price is known for {name}",
            f"one of {', '.join(table)}",
            "Say what the whole machine costs with [gcp.training] price_per_hour.",
        ) from None
